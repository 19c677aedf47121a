//! Which things belong together, given pair by pair: disjoint sets (Galler and Fischer 1964).

/// Disjoint sets of the numbers in 0..`members`.
#[derive(Debug)]
pub(crate) struct DisjointSets {
    parents: Vec<u32>,
}

impl DisjointSets {
    /// Starts with `members` sets of one number each.
    pub(crate) fn new(members: usize) -> Self {
        let members = u32::try_from(members).expect("fewer than four billion members");
        Self { parents: (0..members).collect() }
    }

    /// Joins the sets of two members. The lowest member of a set is its root.
    pub(crate) fn unite(&mut self, one: usize, other: usize) {
        let (one, other) = (self.root(one), self.root(other));
        self.parents[one.max(other)] = one.min(other) as u32;
    }

    /// The lowest member of the set that `member` is in.
    fn root(&mut self, mut member: usize) -> usize {
        while self.parents[member] as usize != member {
            let above = self.parents[member] as usize;
            // Halves the path each time, so that paths stay short.
            self.parents[member] = self.parents[above];
            member = self.parents[member] as usize;
        }
        member
    }

    /// The sets of two members or more: the lowest member of each, and the others in ascending
    /// order.
    pub(crate) fn groups(&mut self) -> std::collections::BTreeMap<usize, Vec<usize>> {
        let mut groups = std::collections::BTreeMap::<usize, Vec<usize>>::new();
        for member in 0..self.parents.len() {
            let root = self.root(member);
            if root != member {
                groups.entry(root).or_default().push(member);
            }
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn united_members_are_in_one_group() {
        let mut sets = DisjointSets::new(7);
        sets.unite(5, 3);
        sets.unite(6, 5);
        sets.unite(1, 2);
        sets.unite(2, 1);
        let groups = sets.groups();
        assert_eq!(groups.into_iter().collect::<Vec<_>>(), [(1, vec![2]), (3, vec![5, 6])]);
    }
}
