//! A tensor that is trained, and the optimiser's state for it.

use candle_core::{Result, Tensor, bail};

/// A tensor that is trained: f32, contiguous, on the CPU.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    /// torchvision's name.
    pub(crate) name: String,
    /// The value, in the layout in which its layer multiplies.
    pub(crate) value: Tensor,
    /// The gradient of the last batch's loss, in the value's shape; the optimiser removes it.
    pub(crate) gradient: Option<Tensor>,
    /// Adam's moments, in the value's shape and order; zeros before the first step.
    pub(crate) moments: [Vec<f32>; 2],
}

impl Parameter {
    pub(crate) fn new(name: String, value: Tensor) -> Self {
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

    /// Value and moments, by their names in a checkpoint.
    fn save(&self) -> Result<Vec<(String, Tensor)>> {
        let [value, first, second] = self.saved_names();
        let moment =
            |moment: &Vec<f32>| Tensor::from_slice(moment, self.value.shape(), self.value.device());
        Ok(vec![
            (value, self.value.clone()),
            (first, moment(&self.moments[0])?),
            (second, moment(&self.moments[1])?),
        ])
    }

    /// Restores what [`Self::save`] gave.
    fn restore(&mut self, find: FindTensor<'_>) -> Result<()> {
        let [value, first, second] = self.saved_names().map(|name| find(&name));
        let value = value?;
        if value.dims() != self.value.dims() {
            bail!("{} is {:?} instead of {:?}", self.name, value.dims(), self.value.dims());
        }
        self.value = value;
        self.moments =
            [super::tensor_values::copy(&first?)?, super::tensor_values::copy(&second?)?];
        Ok(())
    }
}

/// Finds a tensor of a checkpoint by its name.
pub(crate) type FindTensor<'a> = &'a dyn Fn(&str) -> Result<Tensor>;

/// Values and moments of several parameters, by their names in a checkpoint.
pub(crate) fn save_all<'a>(
    parameters: impl IntoIterator<Item = &'a Parameter>,
) -> Result<Vec<(String, Tensor)>> {
    let saved = parameters.into_iter().map(Parameter::save);
    Ok(saved.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// Restores what [`save_all`] gave.
pub(crate) fn restore_all<'a>(
    parameters: impl IntoIterator<Item = &'a mut Parameter>,
    find: FindTensor<'_>,
) -> Result<()> {
    parameters.into_iter().try_for_each(|parameter| parameter.restore(find))
}
