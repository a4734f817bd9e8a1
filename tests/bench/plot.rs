//! The figures as bars: one SVG for the docs, readable on light and dark paper.

use std::fmt::Write as _;

use crate::figures::{Figure, Figures, Metric};

const WIDTH: f64 = 760.0;
const LEFT: f64 = 250.0;
const BAR: f64 = 18.0;

/// Two panels: events per second, and CPU seconds per million events.
pub(crate) fn svg(figures: &Figures) -> String {
    let panels = [
        (Metric::Rate, "events per second (more is better)"),
        (Metric::Cpu, "CPU seconds per million events (less is better)"),
    ];
    let (mut body, mut y) = (String::new(), 10.0);
    for (metric, title) in panels {
        y = panel(&mut body, figures, metric, title, y);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{y}\" fill=\"#ffffff\"/>\n{body}</svg>\n"
    )
}

fn panel(out: &mut String, figures: &Figures, metric: Metric, title: &str, top: f64) -> f64 {
    let shown: Vec<&Figure> = figures
        .all()
        .iter()
        .filter(|f| {
            f.metric == metric
                && !f.work.starts_with("latency")
                && !f.work.contains("to PostgreSQL at")
                && f.median() > 0.0
        })
        .collect();
    let most = shown.iter().map(|f| f.median()).fold(1e-9, f64::max);
    let mut y = top + 18.0;
    let _ = writeln!(out, "<text x=\"10\" y=\"{y}\" font-weight=\"bold\">{title}</text>");
    y += 10.0;
    let mut work = "";
    for f in shown {
        if f.work != work {
            y += 6.0;
            work = &f.work;
        }
        let value = f.median();
        let width = (value / most * (WIDTH - LEFT - 90.0)).max(1.0);
        let fill = match f.runner.as_str() {
            r if r.starts_with("Debezium") => "#c8553d",
            r if r.starts_with("caudal") => "#2f6690",
            _ => "#9aa5b1",
        };
        let middle = y + BAR * 0.7;
        let label =
            if value >= 1_000.0 { format!("{:.0} k", value / 1_000.0) } else { format!("{value:.1}") };
        let _ = writeln!(
            out,
            "<text x=\"{:.0}\" y=\"{middle:.0}\" text-anchor=\"end\">{} · {}</text><rect x=\"{LEFT}\" y=\"{y:.0}\" width=\"{width:.1}\" \
             height=\"{:.0}\" fill=\"{fill}\"/><text x=\"{:.0}\" y=\"{middle:.0}\">{label}</text>",
            LEFT - 8.0,
            f.work,
            f.runner,
            BAR - 3.0,
            LEFT + width + 6.0,
        );
        y += BAR;
    }
    y + 20.0
}
