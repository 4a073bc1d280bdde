//! Charts as inline SVG: bars above the line for attempts that were taken, below for failed attempts.

use crate::frame::marks::Mark;

/// A bar of a chart.
pub(crate) struct Bar {
    pub(crate) taken: u64,
    pub(crate) failed: u64,
}

/// Width of a bar and its gap, and the heights above and below the line.
const STEP: usize = 4;
const ABOVE: u64 = 20;
const BELOW: u64 = 10;

/// A small chart for a row of a table. `label` is the chart's text for screen readers.
pub(crate) fn sparkline(bars: &[Bar], label: &str) -> Mark {
    let most = bars.iter().map(|bar| bar.taken.max(bar.failed * ABOVE / BELOW)).max().unwrap_or_default().max(1);
    // One path for all bars of a side: a list has 50 charts.
    let (mut up, mut down) = (String::new(), String::new());
    for (index, bar) in bars.iter().enumerate() {
        let x = index * STEP;
        let (above, below) = (height(bar.taken, most), height(bar.failed, most));
        if above > 0 {
            up.push_str(&format!("M{x} {y}h3V{ABOVE}h-3z", y = ABOVE - above));
        }
        if below > 0 {
            let end = ABOVE + 1 + below.min(BELOW - 1);
            down.push_str(&format!("M{x} {}h3V{end}h-3z", ABOVE + 1));
        }
    }
    let (width, height) = (bars.len() * STEP, ABOVE + BELOW);
    let label = super::marks::escaped(label);
    Mark::of_html(format!(
        "<svg class=\"spark\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{label}\">\
         <path class=\"up\" d=\"{up}\"/><path class=\"down\" d=\"{down}\"/><path class=\"base\" d=\"M0 {ABOVE}.5h{width}\"/></svg>"
    ))
}

/// A bar that is a link to the rows that the bar counts.
pub(crate) struct LinkedBar {
    pub(crate) bar: Bar,
    pub(crate) href: String,
    /// Text of the link, such as "14:00: 37 taken, 2 failed".
    pub(crate) label: String,
    /// Text of a change within the time of the bar.
    pub(crate) change: Option<String>,
}

/// A wide chart, in which each bar is a link. A triangle marks a change.
pub(crate) fn linked(bars: &[LinkedBar], label: &str) -> Mark {
    const WIDTH: usize = 24;
    const SCALE: u64 = 4;
    let (above, below) = (ABOVE * SCALE, BELOW * SCALE);
    let most = bars.iter().map(|linked| linked.bar.taken.max(linked.bar.failed * ABOVE / BELOW));
    let most = most.max().unwrap_or_default().max(1);
    let mut shapes = String::new();
    for (index, LinkedBar { bar, href, label, change }) in bars.iter().enumerate() {
        let x = index * WIDTH;
        let (up, down) = (height(bar.taken, most) * SCALE, (height(bar.failed, most) * SCALE).min(below - SCALE));
        let label = change.as_ref().map_or_else(|| label.clone(), |change| format!("{label}; changed: {change}"));
        let (href, label) = (super::marks::escaped(href), super::marks::escaped(&label));
        shapes.push_str(&format!(
            "<a href=\"{href}\" aria-label=\"{label}\"><title>{label}</title><path class=\"hit\" d=\"M{x} 0h{WIDTH}v{all}h-{WIDTH}z\"/>",
            all = above + below
        ));
        let (left, bar_width) = (x + 2, WIDTH - 4);
        if up > 0 {
            shapes.push_str(&format!(
                "<path class=\"up\" d=\"M{left} {y}h{bar_width}V{above}h-{bar_width}z\"/>",
                y = above - up
            ));
        }
        if down > 0 {
            shapes.push_str(&format!(
                "<path class=\"down\" d=\"M{left} {y}h{bar_width}v{down}h-{bar_width}z\"/>",
                y = above + 1
            ));
        }
        if let Some(change) = change {
            let (change, middle, end) = (super::marks::escaped(change), x + WIDTH / 2, above + below);
            shapes.push_str(&format!(
                "<path class=\"mark\" d=\"M{middle} {y}l5 8h-10z\"><title>{change}</title></path>",
                y = end - 8
            ));
        }
        shapes.push_str("</a>");
    }
    let (width, all) = (bars.len() * WIDTH, above + below);
    let label = super::marks::escaped(label);
    Mark::of_html(format!(
        "<svg class=\"chart\" viewBox=\"0 0 {width} {all}\" preserveAspectRatio=\"none\" role=\"group\" aria-label=\"{label}\">{shapes}\
         <path class=\"base\" d=\"M0 {above}.5h{width}\"/></svg>"
    ))
}

/// Height of a bar: at least 1 for any number above 0.
fn height(value: u64, most: u64) -> u64 {
    if value == 0 { 0 } else { (value * ABOVE / most).clamp(1, ABOVE) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bars_stay_within_the_chart(numbers in proptest::collection::vec((0_u64..1_000_000, 0_u64..1_000_000), 0..100)) {
            let bars: Vec<Bar> = numbers.iter().map(|&(taken, failed)| Bar { taken, failed }).collect();
            let svg = sparkline(&bars, "x").to_string();
            let up = numbers.iter().filter(|(taken, _)| *taken > 0).count();
            let down = numbers.iter().filter(|(_, failed)| *failed > 0).count();
            prop_assert_eq!(svg.matches("V20h-3z").count(), up);
            prop_assert_eq!(svg.matches("h-3z").count(), up + down);
            prop_assert!(!svg.contains("M-"));
        }

        #[test]
        fn each_bar_is_one_link(numbers in proptest::collection::vec((0_u64..1_000_000, 0_u64..1_000_000), 0..50)) {
            let linked_bar = |&(taken, failed): &(u64, u64)| LinkedBar {
                bar: Bar { taken, failed },
                href: "/x?a=1&b=2".to_owned(),
                label: "a \"label\"".to_owned(),
                change: None,
            };
            let bars: Vec<LinkedBar> = numbers.iter().map(linked_bar).collect();
            let svg = linked(&bars, "x").to_string();
            prop_assert_eq!(svg.matches("<a href=\"/x?a=1&amp;b=2\"").count(), numbers.len());
            prop_assert!(!svg.contains("v-") && !svg.contains(" -"));
        }

        #[test]
        fn higher_numbers_have_no_lower_bars(a in 0_u64..1_000_000, b in 0_u64..1_000_000) {
            let most = a.max(b).max(1);
            prop_assert_eq!(height(a, most) <= height(b, most), a <= b || height(a, most) == height(b, most));
        }
    }
}
