//! Times as text, always UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment as RFC 3339 with milliseconds: `2026-11-22T15:30:12.345Z`.
pub(crate) fn rfc3339_millis(at: SystemTime) -> String {
    let (fields, millis) = fields(at);
    let Fields { year, month, day, hour, minute, second } = fields;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// A moment as RFC 3339: `2026-11-22T15:30:12Z`.
pub(crate) fn rfc3339(at: SystemTime) -> String {
    let Fields { year, month, day, hour, minute, second } = fields(at).0;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// A moment as part of a name: `20261122-153012`.
pub(crate) fn compact(at: SystemTime) -> String {
    let Fields { year, month, day, hour, minute, second } = fields(at).0;
    format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
}

struct Fields {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

fn fields(at: SystemTime) -> (Fields, u32) {
    // A clock before 1970 is a broken one; 1970 says so as well as any year.
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, seconds) = (since.as_secs() / 86400, since.as_secs() % 86400);
    // Days to a date of the Gregorian calendar, counted in eras of 400 years from a 1st of March
    // (Howard Hinnant, "chrono-compatible low-level date algorithms", civil_from_days).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let fields = Fields {
        year: year_of_era + era * 400 + u64::from(month <= 2),
        month,
        day: day_of_year - (153 * from_march + 2) / 5 + 1,
        hour: seconds / 3600,
        minute: seconds / 60 % 60,
        second: seconds % 60,
    };
    (fields, since.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_795_361_412, "2026-11-22T15:30:12Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
        let at = UNIX_EPOCH + Duration::from_millis(1_795_361_412_007);
        assert_eq!(rfc3339_millis(at), "2026-11-22T15:30:12.007Z");
        assert_eq!(compact(at), "20261122-153012");
    }
}
