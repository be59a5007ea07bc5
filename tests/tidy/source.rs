//! Source text without what is not code, and the functions in it. Good for counting and finding
//! names, not a parser: macros are text like any other.

/// A language whose comments and literals are known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Language {
    Rust,
    C,
}

/// A function with its body.
#[derive(Debug, Eq, PartialEq)]
pub struct Function {
    pub name: String,
    /// The line that it begins at, from 1.
    pub line: usize,
    /// Lines between the braces of its body.
    pub lines: usize,
}

/// The same text with blanks for comments and for what is in string and character literals. Lines
/// stay where they are.
pub fn code(text: &str, language: Language) -> String {
    let mut rest = text;
    let mut code = String::with_capacity(text.len());
    while !rest.is_empty() {
        let before = code.chars().next_back();
        let length = skipped(rest, before, language);
        if length == 0 {
            let next = rest.chars().next().unwrap_or_default();
            code.push(next);
            rest = &rest[next.len_utf8()..];
        } else {
            let (gone, after) = rest.split_at(length);
            code.extend(gone.chars().map(|it| if it == '\n' { '\n' } else { ' ' }));
            rest = after;
        }
    }
    code
}

/// The bytes at the start of `text` that are a comment or a literal.
fn skipped(text: &str, before: Option<char>, language: Language) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return block_comment(text, language);
    }
    if text.starts_with('"') {
        return quoted(text, '"');
    }
    if language == Language::C {
        return if text.starts_with('\'') {
            quoted(text, '\'')
        } else {
            0
        };
    }
    let in_name = before.is_some_and(|it| it.is_alphanumeric() || it == '_');
    if !in_name && let Some(length) = raw_string(text) {
        return length;
    }
    if text.starts_with('\'') {
        return character(text);
    }
    0
}

fn block_comment(text: &str, language: Language) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") && (depth == 0 || language == Language::Rust) {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if letter == '\\' {
            escaped = true;
        } else if letter == quote {
            return at + 1;
        }
    }
    text.len()
}

/// `r"…"`, `r#"…"#`, `br"…"` and `cr"…"`.
fn raw_string(text: &str) -> Option<usize> {
    let bare = text.strip_prefix(['b', 'c']).unwrap_or(text);
    let hashed = bare.strip_prefix('r')?;
    let inside = hashed.trim_start_matches('#');
    let hashes = hashed.len() - inside.len();
    let inside = inside.strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let start = text.len() - inside.len();
    let length = inside.find(&end).map_or(inside.len(), |at| at + end.len());
    Some(start + length)
}

/// A character literal; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut letters = text.char_indices().skip(1);
    match (letters.next(), letters.next()) {
        (Some((_, '\\')), _) => quoted(text, '\''),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

/// The functions in a text that [`code`] has made. One in another is counted as well.
pub fn functions(code: &str, language: Language) -> Vec<Function> {
    match language {
        Language::Rust => rust_functions(code),
        Language::C => c_functions(code),
    }
}

fn rust_functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = code[..at].chars().next_back();
        let name: String = code[at + 3..].chars().take_while(is_in_name).collect();
        if before.is_some_and(|it| is_in_name(&it)) || name.is_empty() {
            continue;
        }
        if let Some(open) = body_of(code, at) {
            found.push(function(code, name, at, open));
        }
    }
    found
}

/// The brace that opens the body of the function at `at`; `None` for a declaration without one.
fn body_of(code: &str, at: usize) -> Option<usize> {
    let mut depth = 0;
    for (offset, letter) in code[at..].char_indices() {
        match letter {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 => return Some(at + offset),
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

fn c_functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, letter) in code.char_indices() {
        match letter {
            '{' => {
                let head = code[start..at].trim_start();
                let from = at - head.len();
                if depth == 0
                    && !head.contains('=')
                    && let Some((before, _)) = head.split_once('(')
                {
                    let reversed = before.trim_end().chars().rev();
                    let name: Vec<char> = reversed.take_while(is_in_name).collect();
                    found.push(function(code, name.into_iter().rev().collect(), from, at));
                }
                depth += 1;
            }
            '}' => {
                depth -= 1;
                start = at + 1;
            }
            ';' if depth == 0 => start = at + 1,
            '\n' if depth == 0 && code[start..at].trim_start().starts_with('#') => start = at + 1,
            _ => {}
        }
    }
    found
}

fn function(code: &str, name: String, at: usize, open: usize) -> Function {
    let body = &code[open..=closing(code, open)];
    Function {
        name,
        line: code[..at].matches('\n').count() + 1,
        lines: body.matches('\n').count().saturating_sub(1),
    }
}

/// The brace that closes the one at `open`; the end of the text if there is none.
pub fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (offset, letter) in code[open..].char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + offset;
        }
    }
    code.len() - 1
}

pub fn is_in_name(letter: &char) -> bool {
    letter.is_alphanumeric() || *letter == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(text: &str, language: Language) -> Vec<(String, usize, usize)> {
        let found = functions(&code(text, language), language);
        found
            .into_iter()
            .map(|it| (it.name, it.line, it.lines))
            .collect()
    }

    #[test]
    fn comments_and_literals_are_blank() {
        let text =
            "a /* { /* } */ { */ b // }\n\"{\\\"{\" 'x' '{' '\\'' 'life r#\"}\"{\"# br\"\\\"";
        let bare = code(text, Language::Rust);
        assert!(!bare.contains(['{', '}', '"', '/']), "{bare}");
        assert_eq!(bare.len(), text.len());
        assert_eq!(bare.lines().count(), 2);
        assert!(bare.contains("'life"));
        assert!(bare.starts_with("a ") && bare.contains(" b "));
    }

    #[test]
    fn a_name_that_ends_in_r_begins_no_raw_string() {
        assert_eq!(code("for\"{\"", Language::Rust), "for   ");
        assert_eq!(code("'{' '\"' x", Language::C), "        x");
    }

    #[test]
    fn lines_of_a_body_are_counted() {
        let text =
            "fn one() {}\n\nfn two(a: [u8; 3])\nwhere\n    A: B,\n{\n    x(\"}\");\n    y();\n}\n";
        let expected = vec![("one".into(), 1, 0), ("two".into(), 3, 2)];
        assert_eq!(lengths(text, Language::Rust), expected);
    }

    #[test]
    fn declarations_and_pointers_are_no_functions() {
        let text = "trait T { fn a(&self); }\ntype F = fn (u8) -> u8;\nlet f: fn(u8) = g;";
        assert_eq!(lengths(text, Language::Rust), vec![]);
    }

    #[test]
    fn a_function_in_another_counts_in_both() {
        let text = "fn outer() {\n    fn inner() {\n        x();\n    }\n}";
        let expected = vec![("outer".into(), 1, 3), ("inner".into(), 2, 1)];
        assert_eq!(lengths(text, Language::Rust), expected);
    }

    #[test]
    fn functions_in_c_are_found() {
        let text = "#include <x.h>\nstruct s {\n    int a;\n};\nstatic const int t[] = {f(1), 2};\n\
                    static int\nmain(int c, char **v)\n{\n    if (c) {\n        g('{');\n    }\n}\nint d(void);\n";
        let expected = vec![("main".into(), 6, 3)];
        assert_eq!(lengths(text, Language::C), expected);
    }
}
