//! Differences between two texts by line. Pure.

use crate::frame::marks::{Mark, escaped};

/// Bound of the compared pairs of lines. Above, the changed part is shown as removed and added as a whole.
const MAX_PAIRS: usize = 1_000_000;

/// Unchanged lines around a change.
const CONTEXT: usize = 3;

/// A line of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// A line of both texts.
    Same(&'a str),
    /// A line of the text before.
    Removed(&'a str),
    /// A line of the text after.
    Added(&'a str),
    /// A number of lines of both texts that are left out.
    LeftOut(usize),
}

/// The difference between two texts, with the unchanged lines around each change.
pub(crate) fn difference<'a>(before: &'a str, after: &'a str) -> Vec<Line<'a>> {
    shortened(&compared(before, after))
}

/// The difference as preformatted text, with a mark before each line.
pub(crate) fn shown(before: &str, after: &str) -> Mark {
    let mut html = String::from("<pre class=\"diff\">");
    for line in difference(before, after) {
        html.push_str(&match line {
            Line::Same(text) => format!("  {}\n", escaped(text)),
            Line::Removed(text) => format!("<del>- {}</del>\n", escaped(text)),
            Line::Added(text) => format!("<ins>+ {}</ins>\n", escaped(text)),
            Line::LeftOut(1) => "<i>… 1 unchanged line</i>\n".to_owned(),
            Line::LeftOut(count) => format!("<i>… {count} unchanged lines</i>\n"),
        });
    }
    html.push_str("</pre>");
    Mark::of_html(html)
}

/// All lines of both texts in order.
fn compared<'a>(before: &'a str, after: &'a str) -> Vec<Line<'a>> {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.split('\n').collect(), after.split('\n').collect());
    let begin = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old[begin..], &new[begin..]);
    let end = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old_part, new_part) = (&old_rest[..old_rest.len() - end], &new_rest[..new_rest.len() - end]);
    let mut lines: Vec<Line<'a>> = old[..begin].iter().map(|line| Line::Same(line)).collect();
    if old_part.len().saturating_mul(new_part.len()) > MAX_PAIRS {
        lines.extend(old_part.iter().map(|line| Line::Removed(line)));
        lines.extend(new_part.iter().map(|line| Line::Added(line)));
    } else {
        add_changed(old_part, new_part, &mut lines);
    }
    lines.extend(old[old.len() - end..].iter().map(|line| Line::Same(line)));
    lines
}

/// Adds the changed part, with a longest common subsequence of lines as unchanged.
fn add_changed<'a>(old: &[&'a str], new: &[&'a str], lines: &mut Vec<Line<'a>>) {
    // `longest[i * width + j]` is the length of the longest common subsequence of old[i..] and new[j..].
    let width = new.len() + 1;
    let mut longest = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            longest[i * width + j] = if old[i] == new[j] {
                longest[(i + 1) * width + j + 1] + 1
            } else {
                longest[(i + 1) * width + j].max(longest[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(Line::Same(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if i < old.len() && (j == new.len() || longest[(i + 1) * width + j] >= longest[i * width + j + 1]) {
            lines.push(Line::Removed(old[i]));
            i += 1;
        } else {
            lines.push(Line::Added(new[j]));
            j += 1;
        }
    }
}

/// Leaves out unchanged lines far from each change.
fn shortened<'a>(lines: &[Line<'a>]) -> Vec<Line<'a>> {
    let is_change = |line: &Line<'_>| !matches!(line, Line::Same(_));
    let is_near = |index: usize| {
        let from = index.saturating_sub(CONTEXT);
        lines[from..lines.len().min(index + CONTEXT + 1)].iter().any(is_change)
    };
    let mut shown = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        match (is_near(index), shown.last_mut()) {
            (true, _) => shown.push(*line),
            (false, Some(Line::LeftOut(count))) => *count += 1,
            (false, _) => shown.push(Line::LeftOut(1)),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn side<'a>(lines: &[Line<'a>], is_old: bool) -> Vec<&'a str> {
        let of_side = |line: &Line<'a>| match line {
            Line::Same(text) => Some(*text),
            Line::Removed(text) => is_old.then_some(*text),
            Line::Added(text) => (!is_old).then_some(*text),
            Line::LeftOut(_) => None,
        };
        lines.iter().filter_map(of_side).collect()
    }

    proptest! {
        #[test]
        fn both_texts_can_be_read_from_the_difference(before in "([abc]\n?){0,30}", after in "([abc]\n?){0,30}") {
            let lines = compared(&before, &after);
            prop_assert_eq!(side(&lines, true).join("\n"), before.clone());
            prop_assert_eq!(side(&lines, false).join("\n"), after.clone());
            let changes = lines.iter().filter(|line| !matches!(line, Line::Same(_))).count();
            prop_assert_eq!(changes == 0, before == after);
        }

        #[test]
        fn no_change_and_no_line_is_lost(before in "([ab]\n){0,40}", after in "([ab]\n){0,40}") {
            let (all, shown) = (compared(&before, &after), difference(&before, &after));
            let left_out: usize = shown.iter().map(|line| if let Line::LeftOut(count) = line { *count } else { 0 }).sum();
            let kept = shown.iter().filter(|line| !matches!(line, Line::LeftOut(_))).count();
            prop_assert_eq!(kept + left_out, all.len());
            let changes = |lines: &[Line<'_>]| lines.iter().filter(|line| matches!(line, Line::Removed(_) | Line::Added(_))).count();
            prop_assert_eq!(changes(&shown), changes(&all));
        }
    }

    #[test]
    fn a_changed_line_stands_between_its_neighbours() {
        let shown = difference("1\n2\n3\n4\n5\n6\n7\n8\n9", "1\n2\n3\n4\n5\nsix\n7\n8\n9");
        let expected = [
            Line::LeftOut(2),
            Line::Same("3"),
            Line::Same("4"),
            Line::Same("5"),
            Line::Removed("6"),
            Line::Added("six"),
            Line::Same("7"),
            Line::Same("8"),
            Line::Same("9"),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn long_texts_are_compared_within_the_bound() {
        let text = |word: &str| (0..3000).map(|line| format!("{word}{line}")).collect::<Vec<_>>().join("\n");
        assert_eq!(difference(&text("a"), &text("b")).len(), 6000);
    }
}
