//! The chart: one group of bars per case, each group scaled to its own longest bar, the medians beside the bars.

use super::report::{Row, number};

const WIDTH: u32 = 900;
const BAR_LEFT: u32 = 340;
const BAR_MOST: u32 = 420;
const BAR_HEIGHT: u32 = 14;
const GROUP_GAP: u32 = 14;
const TOP: u32 = 70;

/// Balancers in the order of their bars, with their colours: readable on light and dark, and told apart without colour
/// vision.
const COLOURS: [(&str, &str); 5] = [
    ("evenkeel", "#0072b2"),
    ("baseline", "#56b4e9"),
    ("haproxy", "#e69f00"),
    ("nginx", "#009e73"),
    ("envoy", "#cc79a7"),
];

/// An SVG of every row that has a goal.
pub fn draw(rows: &[Row], columns: &[&str]) -> String {
    let shown: Vec<_> = COLOURS
        .into_iter()
        .filter(|(name, _)| columns.contains(name))
        .collect();
    let mut bars = legend(&shown);
    let mut top = TOP;
    for row in rows.iter().filter(|row| row.is_main()) {
        bars += &group(row, &shown, top);
        top += group_height(row, &shown) + GROUP_GAP;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{top}\" viewBox=\"0 0 {WIDTH} {top}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"26\" font-size=\"16\" font-weight=\"bold\">What a balancer costs: shorter is better</text>\n\
         {bars}</svg>\n"
    )
}

fn legend(shown: &[(&str, &str)]) -> String {
    let entry = |(at, (name, colour)): (usize, &(&str, &str))| {
        let left = 16 + 100 * at;
        format!(
            "<rect x=\"{left}\" y=\"38\" width=\"12\" height=\"12\" fill=\"{colour}\"/><text x=\"{}\" y=\"48\">{name}</text>\n",
            left + 18
        )
    };
    shown.iter().enumerate().map(entry).collect()
}

fn group_height(row: &Row, shown: &[(&str, &str)]) -> u32 {
    let bars = shown
        .iter()
        .filter(|(name, _)| row.median(name).is_some())
        .count();
    // The caption takes two lines.
    (bars as u32 * BAR_HEIGHT).max(2 * BAR_HEIGHT)
}

fn group(row: &Row, shown: &[(&str, &str)], top: u32) -> String {
    let medians: Vec<_> = shown
        .iter()
        .filter_map(|(name, colour)| Some((*colour, row.median(name)?)))
        .collect();
    let longest = medians
        .iter()
        .map(|(_, median)| *median)
        .fold(f64::MIN_POSITIVE, f64::max);
    let mut text = format!(
        "<text x=\"16\" y=\"{}\" font-weight=\"bold\">{}</text><text x=\"16\" y=\"{}\" fill=\"#555555\">{}, {}</text>\n",
        top + 11,
        escape(&row.title),
        top + 25,
        row.what,
        row.unit
    );
    for (at, (colour, median)) in medians.iter().enumerate() {
        let y = top + at as u32 * BAR_HEIGHT;
        let width = (median / longest * f64::from(BAR_MOST)).max(1.0);
        text += &format!(
            "<rect x=\"{BAR_LEFT}\" y=\"{y}\" width=\"{width:.0}\" height=\"{}\" fill=\"{colour}\"/>\
             <text x=\"{:.0}\" y=\"{}\">{}</text>\n",
            BAR_HEIGHT - 2,
            f64::from(BAR_LEFT) + width + 6.0,
            y + 10,
            number(*median)
        );
    }
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
