//! Line charts as SVG: one panel beside the other, the count of balancers from left to right, the
//! unevenness upwards.

use std::fmt::Write;

const WIDTH: f64 = 380.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 50.0;
const TOP: f64 = 90.0;
const COLOURS: [&str; 5] = ["#0072b2", "#555555", "#d55e00", "#cc79a7", "#009e73"];

pub struct Line {
    pub name: &'static str,
    pub points: Vec<f64>,
}

pub struct Panel {
    pub title: &'static str,
    pub lines: Vec<Line>,
}

pub fn draw(title: &str, counts: &[usize], panels: &[Panel]) -> String {
    let (width, height) = (
        (WIDTH + LEFT) * panels.len() as f64 + 20.0,
        TOP + HEIGHT + 50.0,
    );
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"26\" font-size=\"16\" font-weight=\"bold\">{title}</text>\n"
    );
    let names = panels.first().map_or(&[][..], |panel| &panel.lines);
    for (at, line) in names.iter().enumerate() {
        let x = 16 + at * 168;
        add(
            &mut svg,
            format_args!(
                "<rect x=\"{x}\" y=\"38\" width=\"12\" height=\"12\" fill=\"{}\"/><text x=\"{}\" y=\"48\">{}</text>",
                COLOURS[at],
                x + 18,
                line.name
            ),
        );
    }
    for (at, panel) in panels.iter().enumerate() {
        draw_panel(&mut svg, LEFT + at as f64 * (WIDTH + LEFT), counts, panel);
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw_panel(svg: &mut String, left: f64, counts: &[usize], panel: &Panel) {
    let points = panel.lines.iter().flat_map(|line| &line.points);
    let most = points.fold(1.5_f64, |most, point| most.max(*point)).ceil();
    let x = |at: usize| left + at as f64 * (WIDTH - 30.0) / (counts.len() - 1).max(1) as f64;
    let y = |value: f64| TOP + HEIGHT * (1.0 - (value - 1.0) / (most - 1.0));
    let (bottom, title) = (TOP + HEIGHT, panel.title);
    add(
        svg,
        format_args!("<text x=\"{left}\" y=\"76\" font-weight=\"bold\">{title}</text>"),
    );
    for step in 0..=4 {
        let value = 1.0 + (most - 1.0) * f64::from(step) / 4.0;
        let (at, end) = (y(value), left + WIDTH - 30.0);
        add(
            svg,
            format_args!(
                "<line x1=\"{left}\" y1=\"{at:.1}\" x2=\"{end}\" y2=\"{at:.1}\" stroke=\"#dddddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555555\">{value:.2}</text>",
                left - 6.0,
                at + 4.0
            ),
        );
    }
    for (at, count) in counts.iter().enumerate() {
        add(
            svg,
            format_args!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555555\">{count}</text>",
                x(at),
                bottom + 18.0
            ),
        );
    }
    add(
        svg,
        format_args!(
            "<text x=\"{left}\" y=\"{:.1}\" fill=\"#555555\">balancers</text>",
            bottom + 36.0
        ),
    );
    for (line, colour) in panel.lines.iter().zip(COLOURS) {
        let points = line.points.iter().enumerate();
        let points: Vec<String> = points
            .map(|(at, point)| format!("{:.1},{:.1}", x(at), y(*point)))
            .collect();
        add(
            svg,
            format_args!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                points.join(" ")
            ),
        );
    }
}

fn add(svg: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(svg, "{line}");
}
