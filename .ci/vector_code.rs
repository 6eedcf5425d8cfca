//! Every function of one variable whose formula is compiled where it is used, and the loss that takes in a
//! layer, in f32, forward and backward: what the disassembly looks at.

use autograd::{LinearCrossEntropyOptions, Result, Tape, Tensor};

fn main() -> Result<()> {
    let tape = Tape::<f32>::new();
    let x = tape.var(Tensor::from([0.25, 0.5, 0.75, 1.0]));
    let w = tape.var(Tensor::from([0.5]));
    let all = [
        x.silu(), x.gelu(), x.gelu_tanh(), x.mish(), x.softplus(1.0, 20.0)?, x.logsigmoid(),
        x.softsign(), x.tanhshrink(), x.glu(0)?, x.elu(1.0), x.selu(), x.celu(1.0)?,
        x.leaky_relu(0.01), x.prelu(&w)?, x.hardtanh(-1.0, 1.0)?, x.relu6(), x.hardsigmoid(),
        x.hardswish(), x.softshrink(0.5)?, x.hardshrink(0.5), x.sinh(), x.cosh(), x.asinh(),
        (&x + 1.0).acosh(), (&x * 0.5).atanh(), x.maximum(&w)?, x.hypot(&w)?, x.clamp(0.0, 1.0)?,
    ];
    for y in &all {
        println!("{}", y.sum().backward_retain()?.wrt(&x)?);
    }
    let (x, y) = (x.reshape([2, 2])?, Tensor::from([0_i64, 1]));
    let loss = x.linear_cross_entropy(&x, None, &y, &LinearCrossEntropyOptions::default())?;
    println!("{}", loss.backward()?.wrt(&x)?);
    Ok(())
}
