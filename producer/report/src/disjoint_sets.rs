//! Which things belong together, told pair by pair (Galler and Fischer 1964).

/// Sets of the numbers below some number, at first each alone.
#[derive(Debug)]
pub(crate) struct DisjointSets {
    parents: Vec<u32>,
}

impl DisjointSets {
    /// So many sets of one.
    pub(crate) fn new(members: usize) -> Self {
        let members = u32::try_from(members).expect("fewer than four billion members");
        Self { parents: (0..members).collect() }
    }

    /// Makes one set of those that two members are in. Its lowest member stands for a set.
    pub(crate) fn unite(&mut self, one: usize, other: usize) {
        let (one, other) = (self.root(one), self.root(other));
        self.parents[one.max(other)] = one.min(other) as u32;
    }

    fn root(&mut self, mut member: usize) -> usize {
        while self.parents[member] as usize != member {
            let above = self.parents[member] as usize;
            // Half the path each time, so that it stays short.
            self.parents[member] = self.parents[above];
            member = self.parents[member] as usize;
        }
        member
    }

    /// Sets of several, each by its lowest member and the others in order.
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
