//! A tensor that is learnt, and what the optimiser knows about it.

use candle_core::{Result, Tensor, bail};

/// A tensor that is learnt: f32, contiguous, on the CPU.
#[derive(Clone, Debug)]
pub(super) struct Parameter {
    /// torchvision's.
    pub(super) name: String,
    /// As the layer that owns it multiplies it.
    pub(super) value: Tensor,
    /// Of the loss of the last batch, in the value's shape; taken by the optimiser.
    pub(super) gradient: Option<Tensor>,
    /// Adam's moments, in the value's shape and order; zeros before the first step.
    pub(super) moments: [Vec<f32>; 2],
}

impl Parameter {
    pub(super) fn new(name: String, value: Tensor) -> Self {
        let moments = [vec![0.0; value.elem_count()], vec![0.0; value.elem_count()]];
        Self { name, value, gradient: None, moments }
    }

    /// Names of value and moments in a checkpoint.
    fn saved_names(&self) -> [String; 3] {
        [
            self.name.clone(),
            format!("adam.first.{}", self.name),
            format!("adam.second.{}", self.name),
        ]
    }

    /// Value and moments, to continue from.
    pub(super) fn save(&self) -> Result<Vec<(String, Tensor)>> {
        let [value, first, second] = self.saved_names();
        let moment =
            |moment: &Vec<f32>| Tensor::from_slice(moment, self.value.shape(), self.value.device());
        Ok(vec![
            (value, self.value.clone()),
            (first, moment(&self.moments[0])?),
            (second, moment(&self.moments[1])?),
        ])
    }

    /// Continues from what [`Self::save`] gave; `find` tells a tensor by its name.
    pub(super) fn restore(&mut self, find: &dyn Fn(&str) -> Result<Tensor>) -> Result<()> {
        let [value, first, second] = self.saved_names().map(|name| find(&name));
        let value = value?;
        if value.dims() != self.value.dims() {
            bail!("{} is {:?} instead of {:?}", self.name, value.dims(), self.value.dims());
        }
        self.value = value;
        self.moments = [super::values::copy(&first?)?, super::values::copy(&second?)?];
        Ok(())
    }
}
