//! How long cross entropy takes, forward and backward, over rows and over classes, as pictures.

use std::path::Path;

use plotters::prelude::*;

use crate::head;
use crate::limits::Limits;
use crate::measure::{Failure, measure, quantile};
use crate::peer::{Framework, Peer};
use crate::workloads::{Kind, Workload};

const ROUNDS: usize = 5;
/// Seconds of one side in a round.
const BUDGET: f64 = 0.02;

struct Picture {
    file: &'static str,
    caption: &'static str,
    axis: &'static str,
    /// Rows and classes of each point.
    sizes: Vec<(usize, usize)>,
    /// What of a size is on the axis.
    x: fn((usize, usize)) -> usize,
}

/// At most 2²⁶ elements each.
fn pictures() -> [Picture; 3] {
    let rows = [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536];
    let classes = [10, 32, 100, 320, 1000, 3200, 10_000, 32_000, 131_072];
    let over_rows = |file, caption, classes| {
        let sizes = rows.map(|rows| (rows, classes)).to_vec();
        Picture { file, caption, axis: "rows", sizes, x: |size| size.0 }
    };
    [
        over_rows("rows_10.svg", "cross entropy, forward + backward, 10 classes", 10),
        over_rows("rows_1000.svg", "cross entropy, forward + backward, 1,000 classes", 1000),
        Picture {
            file: "classes.svg",
            caption: "cross entropy, forward + backward, 512 rows",
            axis: "classes",
            sizes: classes.map(|classes| (512, classes)).to_vec(),
            x: |size| size.1,
        },
    ]
}

/// Seconds of ours, of PyTorch, and what the machine allows.
type Times = [f64; 3];

/// Measures all points and writes the pictures, and the points, in seconds, as `points.csv`.
pub fn plot(directory: &Path, python: &str, threads: &[usize]) -> Result<(), Failure> {
    std::fs::create_dir_all(directory)?;
    let pictures = pictures();
    let mut curves = vec![vec![]; pictures.len()];
    let mut csv = String::new();
    for &threads in threads {
        let mut peers = [Peer::start(Framework::PyTorch, python, threads)?];
        if csv.is_empty() {
            csv = format!("# {}picture,threads,rows,classes,ours,pytorch,limit\n", head(&peers));
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        let limits = pool.install(Limits::measure).map_err(|e| e.to_string())?;
        for (picture, curves) in pictures.iter().zip(&mut curves) {
            eprintln!("{} with {threads}", picture.file);
            let mut times: Vec<Times> = Vec::new();
            for &(rows, classes) in &picture.sizes {
                let point = pool.install(|| point(rows, classes, &mut peers, &limits))?;
                let [ours, pytorch, limit] = point;
                let file = picture.file;
                csv +=
                    &format!("{file},{threads},{rows},{classes},{ours:e},{pytorch:e},{limit:e}\n");
                times.push(point);
            }
            curves.push((threads, times));
        }
    }
    for (picture, curves) in pictures.iter().zip(&curves) {
        let svg = draw(picture, curves)?;
        std::fs::write(directory.join(picture.file), svg)?;
    }
    std::fs::write(directory.join("points.csv"), csv)?;
    eprintln!("wrote {}", directory.display());
    Ok(())
}

fn point(
    rows: usize,
    classes: usize,
    peers: &mut [Peer],
    limits: &Limits,
) -> Result<Times, Failure> {
    let kind = Kind::CrossEntropy { rows, classes, smoothing: 0.0 };
    let name = format!("cross_entropy/{rows}x{classes}/0");
    let workload = Workload { name, kind, goal: [f64::NAN; 2] };
    let mut seconds = measure(&workload, peers, ROUNDS, BUDGET)?;
    let limit = workload.kind.at_best(limits).unwrap_or(f64::NAN);
    Ok([quantile(&mut seconds.ours, 0.5), quantile(&mut seconds.peers[0], 0.5), limit])
}

/// Both axes logarithmic; more threads are drawn lighter.
fn draw(picture: &Picture, curves: &[(usize, Vec<Times>)]) -> Result<String, Failure> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (760, 480)).into_drawing_area();
        root.fill(&WHITE)?;
        let xs: Vec<f64> = picture.sizes.iter().map(|&size| (picture.x)(size) as f64).collect();
        let times = || curves.iter().flat_map(|(_, times)| times.iter().flatten().copied());
        let low = times().fold(f64::INFINITY, f64::min);
        let high = times().fold(0.0, f64::max);
        let mut chart = ChartBuilder::on(&root)
            .caption(picture.caption, ("sans-serif", 18))
            .margin(12)
            .margin_right(24)
            .x_label_area_size(40)
            .y_label_area_size(64)
            .build_cartesian_2d(
                (xs[0]..xs[xs.len() - 1]).log_scale(),
                (low / 1.5..high * 1.5).log_scale(),
            )?;
        chart
            .configure_mesh()
            .x_desc(picture.axis)
            .x_label_formatter(&|x| x.to_string())
            .y_label_formatter(&|&y| power_of_ten(y))
            .label_style(("sans-serif", 15))
            .light_line_style(TRANSPARENT)
            .draw()?;
        let sides = [("Gradus", BLUE), ("PyTorch", RED), ("limit of the machine", BLACK)];
        for (side, (name, color)) in sides.into_iter().enumerate() {
            for (i, (threads, times)) in curves.iter().enumerate() {
                let style = color.mix(1.0 / (i + 1) as f64).stroke_width(2);
                let points = xs.iter().zip(times).map(|(&x, times)| (x, times[side]));
                let drawn = if side == 2 {
                    chart.draw_series(DashedLineSeries::new(points, 6, 5, style))?
                } else {
                    chart.draw_series(LineSeries::new(points, style).point_size(3))?
                };
                let s = if *threads == 1 { "" } else { "s" };
                drawn
                    .label(format!("{name}, {threads} thread{s}"))
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
            }
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .label_font(("sans-serif", 15))
            .border_style(BLACK.mix(0.3))
            .background_style(WHITE)
            .draw()?;
        root.present()?;
    }
    Ok(svg)
}

/// For a label of the axis; the powers of ten come a rounding below or above.
fn power_of_ten(seconds: f64) -> String {
    match seconds {
        s if s < 0.99e-6 => format!("{:.0} ns", s * 1e9),
        s if s < 0.99e-3 => format!("{:.0} µs", s * 1e6),
        s if s < 0.99 => format!("{:.0} ms", s * 1e3),
        s => format!("{s:.0} s"),
    }
}
