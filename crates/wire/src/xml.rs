//! Text inside XML elements.

/// Appends text with the characters that mean something to XML as references. What XML 1.0 cannot say at all,
/// such as most control characters, becomes U+FFFD: a parser would refuse the whole document for it.
pub fn escape_into(out: &mut String, text: &str) {
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // A parser would read a bare carriage return as a line feed.
            '\r' => out.push_str("&#xD;"),
            '\t' | '\n' => out.push(letter),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            _ => out.push(letter),
        }
    }
}

/// The text as [`escape_into`] writes it.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    escape_into(&mut out, text);
    out
}

/// Appends `<name>text</name>`.
pub fn element_into(out: &mut String, name: &str, text: &str) {
    out.push('<');
    out.push_str(name);
    out.push('>');
    escape_into(out, text);
    out.push_str("</");
    out.push_str(name);
    out.push('>');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xml_cannot_say_is_replaced_and_the_rest_escaped() {
        assert_eq!(escape("a<b>&\"c\"\r\n\té😀"), "a&lt;b&gt;&amp;&quot;c&quot;&#xD;\n\té😀");
        assert_eq!(escape("\u{0}\u{8}\u{1b}\u{fffe}"), "\u{fffd}\u{fffd}\u{fffd}\u{fffd}");
    }
}
