//! A page as plain text, for a ticket, a chat or a terminal.
//!
//! The text is made from the page's HTML, so that both always agree. The templates use few elements, and escape all
//! foreign texts; the function relies on both, and is no parser for other HTML.

/// Elements that are left out with their content: controls, and marks without a text of their own.
const LEFT_OUT: [&str; 5] = ["button", "form", "script", "style", "svg"];

/// Converts the content of a page.
pub(crate) fn of(html: &str) -> String {
    let mut text = Text::default();
    let mut rest = html;
    while let Some((before, after)) = rest.split_once('<') {
        text.words(before);
        let Some((tag, after)) = after.split_once('>') else { break };
        let (name, is_end) = match tag.strip_prefix('/') {
            Some(name) => (name, true),
            None => (tag.split([' ', '\n', '/']).next().unwrap_or_default(), false),
        };
        rest = after;
        if LEFT_OUT.contains(&name) && !is_end {
            let end = format!("</{name}>");
            rest = after.split_once(end.as_str()).map_or("", |(_, rest)| rest);
        } else if is_end {
            text.end(name);
        } else {
            text.begin(name);
        }
    }
    text.finish()
}

#[derive(Default)]
struct Text {
    done: String,
    line: String,
    /// Rows of the open table.
    table: Option<Vec<Vec<String>>>,
    /// True within preformatted text.
    is_exact: bool,
}

impl Text {
    fn words(&mut self, html: &str) {
        let words = unescaped(html);
        if self.is_exact {
            self.line.push_str(&words);
            return;
        }
        let starts = words.starts_with(char::is_whitespace);
        for (index, word) in words.split_whitespace().enumerate() {
            if (index > 0 || starts) && !self.line.is_empty() && !self.line.ends_with(' ') {
                self.line.push(' ');
            }
            self.line.push_str(word);
        }
        if words.ends_with(char::is_whitespace) && !self.line.is_empty() && !self.line.ends_with(' ') {
            self.line.push(' ');
        }
    }

    fn begin(&mut self, name: &str) {
        match name {
            "table" => {
                self.break_line();
                self.table = Some(Vec::new());
            }
            "tr" => {
                self.line.clear();
                if let Some(rows) = &mut self.table {
                    rows.push(Vec::new());
                }
            }
            "td" | "th" => self.line.clear(),
            "pre" => {
                self.break_line();
                self.is_exact = true;
            }
            "li" => {
                self.break_line();
                self.line.push_str("- ");
            }
            "br" => self.break_line(),
            // The definition follows its term on the line.
            "dd" => {}
            name if is_block(name) => self.break_line(),
            _ => {}
        }
    }

    fn end(&mut self, name: &str) {
        match name {
            "td" | "th" => {
                let cell = self.line.trim().to_owned();
                self.line.clear();
                if let Some(row) = self.table.as_mut().and_then(|rows| rows.last_mut()) {
                    row.push(cell);
                }
            }
            "caption" => {
                let caption = std::mem::take(&mut self.line);
                self.done.push_str(caption.trim());
                self.done.push('\n');
            }
            "table" => {
                let rows = self.table.take().unwrap_or_default();
                self.done.push_str(&aligned(&rows));
                self.done.push('\n');
            }
            "pre" => {
                self.break_line();
                self.is_exact = false;
            }
            "h1" | "h2" | "h3" => {
                self.break_line();
                self.done.push('\n');
            }
            "dt" => self.line = format!("{}: ", self.line.trim()),
            name if is_block(name) => self.break_line(),
            _ => {}
        }
    }

    fn break_line(&mut self) {
        // A block within a cell is one line of the cell.
        if self.table.is_some() && !self.line.trim().is_empty() {
            self.line.push(' ');
            return;
        }
        let line = if self.is_exact { self.line.as_str() } else { self.line.trim() };
        if !line.is_empty() {
            self.done.push_str(line);
            self.done.push('\n');
        }
        self.line.clear();
    }

    fn finish(mut self) -> String {
        self.break_line();
        self.done
    }
}

fn is_block(name: &str) -> bool {
    matches!(
        name,
        "p" | "div"
            | "section"
            | "h1"
            | "h2"
            | "h3"
            | "ul"
            | "ol"
            | "li"
            | "dl"
            | "dd"
            | "details"
            | "summary"
            | "caption"
            | "header"
            | "footer"
            | "figure"
            | "figcaption"
            | "fieldset"
            | "nav"
            | "aside"
    )
}

/// Aligns the columns of a table by two spaces.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// Replaces the entities that the templates write.
fn unescaped(html: &str) -> String {
    let mut text = String::with_capacity(html.len());
    let mut rest = html;
    while let Some((before, after)) = rest.split_once('&') {
        text.push_str(before);
        let Some((entity, following)) = after.split_once(';').filter(|(entity, _)| entity.len() < 8) else {
            text.push('&');
            rest = after;
            continue;
        };
        let number = entity.strip_prefix('#').and_then(|digits| digits.parse().ok()).and_then(char::from_u32);
        match (entity, number) {
            ("amp", _) => text.push('&'),
            ("lt", _) => text.push('<'),
            ("gt", _) => text.push('>'),
            ("quot", _) => text.push('"'),
            ("nbsp", _) => text.push(' '),
            (_, Some(character)) => text.push(character),
            (_, None) => {
                text.push('&');
                rest = after;
                continue;
            }
        }
        rest = following;
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::marks::escaped;

    proptest! {
        #[test]
        fn any_text_in_a_preformatted_part_stays(text in "[ -~\n]*[!-~]") {
            let html = format!("<pre>{}</pre>", escaped(&text));
            prop_assert_eq!(of(&html), format!("{text}\n"));
        }

        #[test]
        fn no_html_panics(html: String) {
            of(&html);
        }
    }

    #[test]
    fn aligns_tables_and_leaves_controls_out() {
        let html = "<h1>Delivery log</h1>\n<p>2 failed\n deliveries.</p><form><p>gone</p></form>
            <table><caption>List</caption><tr><th>time</th><th>type</th></tr>
            <tr><td><time><b>14:02</b> <i>now</i></time></td><td>a &amp; b</td></tr></table>
            <dl><dt>Key</dt><dd>order-1</dd></dl><ul><li>one</li></ul>";
        let expected =
            "Delivery log\n\n2 failed deliveries.\nList\ntime       type\n14:02 now  a & b\n\nKey: order-1\n- one\n";
        assert_eq!(of(html), expected);
    }
}
