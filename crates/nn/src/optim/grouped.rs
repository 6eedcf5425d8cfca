//! An optimiser made of a rule: groups of parameters with options of their own, and what is kept for
//! each parameter.

use std::collections::BTreeMap;
use std::fmt;

use autograd::{Error, Float, Gradients, ParameterId, Result, Tensor};

use super::gradient::Edit;
use super::state::StateDict;
use super::{ClipGrad, Field, Gradient, Optimizer, ParamGroups, Rates, Rule, Update};
use crate::parameters::{Parameter, Parameters, Visitor};

/// The optimiser that updates each parameter by the rule `R`, with the options of the parameter's
/// group.
///
/// ```
/// use nn::prelude::*;
/// # fn main() -> Result<()> {
/// let model = Linear::<f32>::new(4, 3, &mut Generator::new(0))?;
/// // Biases do not decay.
/// let options = AdamOptions { lr: 0.01, weight_decay: 0.1, ..Default::default() };
/// let named = model.named_parameters().into_iter();
/// let biases = named.filter(|(name, _)| name.ends_with("bias")).map(|(_, p)| p.id());
/// let mut optimizer = AdamW::<f32>::new(options)?;
/// optimizer.add_param_group(biases, AdamOptions { weight_decay: 0.0, ..options })?;
/// assert_eq!(optimizer.group_options(1).unwrap().weight_decay, 0.0);
/// # Ok(())
/// # }
/// ```
pub struct Grouped<R: Rule, T: Float> {
    pub(super) groups: Vec<R::Options>,
    /// The groups of the parameters that were named; the others belong to `rest`.
    members: BTreeMap<ParameterId, usize>,
    /// The group of all parameters that were not named; `None` where they are left alone.
    rest: Option<usize>,
    clip: ClipGrad,
    pub(super) kept: BTreeMap<ParameterId, Kept<T>>,
}

/// What is kept for a parameter.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept<T> {
    pub(super) step: u64,
    /// In the order of [`Rule::buffers`], each of the parameter's length.
    pub(super) buffers: Vec<Vec<T>>,
}

impl<R: Rule, T: Float> fmt::Debug for Grouped<R, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({:?}, {:?})", R::NAME, self.groups, self.clip)
    }
}

impl<R: Rule, T: Float> Grouped<R, T> {
    /// The optimiser of all parameters of the model it is given at each step.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an option out of range.
    pub fn new(options: R::Options) -> Result<Self> {
        R::check(&options)?;
        Ok(Grouped {
            groups: vec![options],
            members: BTreeMap::new(),
            rest: Some(0),
            clip: ClipGrad::None,
            kept: BTreeMap::new(),
        })
    }

    /// The optimiser of these parameters; others are left as they are, for another optimiser.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an option out of range.
    pub fn for_parameters(
        parameters: impl IntoIterator<Item = ParameterId>,
        options: R::Options,
    ) -> Result<Self> {
        let mut this = Self::new(options)?;
        this.rest = None;
        this.members = parameters.into_iter().map(|id| (id, 0)).collect();
        Ok(this)
    }

    /// Gives these parameters a group with options of its own; returns its index. The first group
    /// keeps the others.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an option out of range, or a parameter that a group was already
    /// made for; there is no new group then.
    pub fn add_param_group(
        &mut self,
        parameters: impl IntoIterator<Item = ParameterId>,
        options: R::Options,
    ) -> Result<usize> {
        R::check(&options)?;
        let group = self.groups.len();
        let mut members = self.members.clone();
        for id in parameters {
            if let Some(other) = members.insert(id, group) {
                let reason = format!("name one that is in group {other} already");
                return Err(Error::InvalidArgument { op: R::NAME, name: "parameters", reason });
            }
        }
        self.members = members;
        self.groups.push(options);
        Ok(group)
    }

    /// The optimiser with its gradients clipped at each step, as part of the update. A step is an
    /// error where the norm to clip is not finite.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless the bound is positive.
    pub fn with_clip_grad(mut self, clip: ClipGrad) -> Result<Self> {
        clip.check(R::NAME)?;
        self.clip = clip;
        Ok(self)
    }

    /// The options of a group, if there is one of this index.
    pub fn group_options(&self, group: usize) -> Option<&R::Options> {
        self.groups.get(group)
    }

    /// The group of a parameter; `None` for one that is left alone.
    pub(super) fn group_of(&self, id: ParameterId) -> Option<usize> {
        // Most optimisers have one group, and look nothing up.
        if self.members.is_empty() {
            self.rest
        } else {
            self.members.get(&id).copied().or(self.rest)
        }
    }

    /// Finds whatever is wrong with a step, before anything is written; the scale that clips the
    /// gradients.
    fn check_step(
        &self,
        model: &dyn Parameters<Elem = T>,
        gradients: &Gradients<T>,
    ) -> Result<f64> {
        let (mut missing, mut refused, mut misfit) = (Vec::new(), Vec::new(), None);
        let (mut found, mut norm) = (0, 0.0_f64);
        let clips = matches!(self.clip, ClipGrad::Norm(_));
        let mut check = |path: &str, p: &Parameter<T>| {
            let (id, shape) = (p.id(), p.value().shape());
            found += usize::from(self.members.contains_key(&id));
            let Some(group) = self.group_of(id).filter(|_| p.is_trainable()) else { return };
            if let Some(reason) = R::refuses(shape) {
                refused.push((reason, format!("{path} has shape {shape:?}")));
            }
            match gradients.parameter(id) {
                None if R::allow_missing(&self.groups[group]) => {}
                None => missing.push(path.to_owned()),
                Some(g) if g.shape() != shape => {
                    misfit = Some((shape.to_vec(), g.shape().to_vec()))
                }
                Some(g) if clips => norm = norm.hypot(g.norm(2.0).item().map_or(0.0, T::to_f64)),
                Some(_) => {}
            }
            let kept = self.kept.get(&id).and_then(|kept| kept.buffers.first());
            if let Some(buffer) = kept.filter(|buffer| buffer.len() != p.value().numel()) {
                misfit = Some((shape.to_vec(), vec![buffer.len()]));
            }
        };
        model.visit(&mut Visitor::new(&mut check));
        if let Some(&(reason, _)) = refused.first() {
            let found: Vec<String> = refused.into_iter().map(|(_, found)| found).collect();
            let reason = format!("{reason}: {}", found.join(", "));
            return Err(Error::InvalidArgument { op: R::NAME, name: "parameters", reason });
        }
        if found < self.members.len() {
            let all = self.members.len();
            let reason = format!("has {found} of the {all} parameters that groups were made for");
            return Err(Error::InvalidArgument { op: R::NAME, name: "model", reason });
        }
        if !missing.is_empty() {
            return Err(Error::MissingGradient { op: "step", parameters: missing });
        }
        if let Some((lhs, rhs)) = misfit {
            return Err(Error::ShapeMismatch { op: "step", lhs, rhs });
        }
        match self.clip {
            ClipGrad::Norm(_) if !norm.is_finite() => {
                let reason = format!("have norm {norm}, which no factor makes finite");
                Err(Error::InvalidArgument { op: "step", name: "gradients", reason })
            }
            ClipGrad::Norm(max_norm) if norm > max_norm => Ok(max_norm / norm),
            _ => Ok(1.0),
        }
    }
}

impl<R: Rule, T: Float> Optimizer<T> for Grouped<R, T> {
    fn step(
        &mut self,
        model: &mut dyn Parameters<Elem = T>,
        gradients: &Gradients<T>,
    ) -> Result<()> {
        let scale = self.check_step(model, gradients)?;
        let limit = match self.clip {
            ClipGrad::Value(limit) => T::from_f64(limit),
            _ => T::INFINITY,
        };
        let mut failed = None;
        model.visit_mut(&mut Visitor::new(&mut |_: &str, p: &mut Parameter<T>| {
            p.update_buffer(gradients);
            let Some(group) = self.group_of(p.id()).filter(|_| p.is_trainable()) else { return };
            let Some(gradient) = gradients.parameter(p.id()).map(Tensor::contiguous) else {
                return;
            };
            let options = &self.groups[group];
            let sign = if R::maximize(options) { -1.0 } else { 1.0 };
            let edit = Edit { scale: T::from_f64(sign * scale), limit };
            let g = Gradient::new(gradient.as_slice().unwrap_or(&[]), edit);
            if let Err(error) = update::<R, T>(options, &mut self.kept, p, g, gradient.shape()) {
                failed = failed.take().or(Some(error));
            }
        }));
        failed.map_or(Ok(()), Err)
    }

    fn lr(&self) -> f64 {
        let mut first = self.groups.first().cloned();
        first.as_mut().map_or(0.0, |options| *rates::<R>(options).lr)
    }

    fn set_lr(&mut self, lr: f64) {
        self.rates().into_iter().for_each(|rates| *rates.lr = lr);
    }

    fn state_dict(&self, model: &dyn Parameters<Elem = T>) -> Result<StateDict<T>> {
        self.saved(model)
    }

    fn load_state_dict(
        &mut self,
        model: &dyn Parameters<Elem = T>,
        state: &StateDict<T>,
    ) -> Result<()> {
        self.load(model, state)
    }
}

impl<R: Rule, T: Float> ParamGroups for Grouped<R, T> {
    fn rates(&mut self) -> Vec<Rates<'_>> {
        self.groups.iter_mut().map(rates::<R>).collect()
    }
}

fn update<R: Rule, T: Float>(
    options: &R::Options,
    kept: &mut BTreeMap<ParameterId, Kept<T>>,
    p: &mut Parameter<T>,
    g: Gradient<'_, T>,
    shape: &[usize],
) -> Result<()> {
    let id = p.id();
    let w = p.value_mut().make_mut();
    let n = w.len();
    let count = R::buffers(options).len();
    // A schedule may switch a momentum on later than the first step, or off.
    if count == 0 {
        kept.remove(&id);
        return R::update(options, Update { step: 1, shape, w, buffers: &mut [], g });
    }
    let kept = kept.entry(id).or_insert_with(|| Kept { step: 0, buffers: Vec::new() });
    kept.buffers.resize_with(count, || vec![T::from_f64(R::initial(options)); n]);
    kept.step += 1;
    R::update(options, Update { step: kept.step, shape, w, buffers: &mut kept.buffers, g })
}

fn rates<R: Rule>(options: &mut R::Options) -> Rates<'_> {
    let (mut lr, mut momentum) = (None, None);
    for (name, field) in R::fields(options) {
        match (name, field) {
            ("lr", Field::Number(value)) => lr = Some(value),
            ("momentum" | "betas.0", Field::Number(value)) => momentum = Some(value),
            _ => {}
        }
    }
    let Some(lr) = lr else { unreachable!("bug: {} has no field lr", R::NAME) };
    Rates { lr, momentum }
}
