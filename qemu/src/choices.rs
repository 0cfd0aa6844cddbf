//! What `make boot` can be asked for: `choices.txt`, which the Makefile reads too.

/// Lines of a variable and one value of it that works; a variable's first value is its default.
const CHOICES: &str = include_str!("../choices.txt");

/// The values that `variable` may have, its default first.
pub fn allowed(variable: &str) -> Vec<&'static str> {
    CHOICES
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| *name == variable)
        .map(|(_, v)| v)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::allowed;

    #[test]
    fn every_variable_has_a_default() {
        for variable in ["FIRMWARE", "SERVERS", "NODES", "POWER", "TRUST", "IMAGE", "NET", "ACCEL", "HOLD"] {
            assert!(!allowed(variable).is_empty(), "{variable}");
        }
        assert_eq!(allowed("ACCEL").first(), Some(&"tcg"));
        assert!(allowed("ACC").is_empty());
    }
}
