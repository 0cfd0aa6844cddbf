//! Small things about words in messages.

/// A number of things, the noun in the form that belongs to it.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// A sentence about that many things: `1 name was left out`.
pub(crate) fn were(count: u64, noun: &str, what: &str) -> String {
    let verb = if count == 1 { "was" } else { "were" };
    format!("{} {verb} {what}", counted(count, noun))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        assert_eq!([0, 1, 2].map(|count| counted(count, "name")), ["0 names", "1 name", "2 names"]);
        assert_eq!(were(1, "name", "left out"), "1 name was left out");
        assert_eq!(were(2, "name", "left out"), "2 names were left out");
    }
}
