//! Dates and times as people write them, brought to one form whose text sorts as time does.

/// The UTC time `2026-11-22T18:00:00Z` for a date or time of RFC 3339; a date begins at midnight UTC. Parts of a
/// second count as a whole one, so that nothing older passes for newer.
pub(super) fn utc(text: &str) -> Result<String, String> {
    read(text).ok_or_else(|| "not a date or time such as 2026-11-22 or 2026-11-22T18:00:00Z".to_owned())
}

/// A moment by the calendar.
#[derive(Clone, Copy)]
struct Moment {
    year: u32,
    month: u32,
    day: u32,
    /// Seconds of the day.
    second: u32,
}

fn read(text: &str) -> Option<String> {
    let mut rest = text;
    let year = number(&mut rest, 4)?;
    let month = after(&mut rest, '-').and_then(|()| number(&mut rest, 2))?;
    let day = after(&mut rest, '-').and_then(|()| number(&mut rest, 2))?;
    // Room at both ends for an offset to move it by a day.
    if !(1970..=9998).contains(&year) || !(1..=days(year, month)?).contains(&day) {
        return None;
    }
    let mut moment = Moment { year, month, day, second: 0 };
    if !rest.is_empty() {
        moment = time_of_day(moment, rest)?;
    }
    let Moment { year, month, day, second } = moment;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
}

/// `T18:00:00.5+01:00` after the date.
fn time_of_day(date: Moment, mut rest: &str) -> Option<Moment> {
    after(&mut rest, 'T').or_else(|| after(&mut rest, 't'))?;
    let hour = number(&mut rest, 2).filter(|hour| *hour < 24)?;
    let minute = after(&mut rest, ':').and_then(|()| number(&mut rest, 2)).filter(|minute| *minute < 60)?;
    // 60 is a leap second.
    let mut second = after(&mut rest, ':').and_then(|()| number(&mut rest, 2)).filter(|second| *second <= 60)?;
    if after(&mut rest, '.').is_some() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (fraction, more) = rest.split_at(digits);
        if fraction.is_empty() {
            return None;
        }
        second += u32::from(fraction.bytes().any(|digit| digit != b'0'));
        rest = more;
    }
    let (sign, offset) = match rest {
        "Z" | "z" => (1, 0),
        _ => {
            let sign = if after(&mut rest, '+').is_some() { -1 } else { after(&mut rest, '-').map(|()| 1)? };
            let hours = number(&mut rest, 2).filter(|hours| *hours < 24)?;
            let minutes = after(&mut rest, ':').and_then(|()| number(&mut rest, 2)).filter(|minutes| *minutes < 60)?;
            if !rest.is_empty() {
                return None;
            }
            (sign, hours * 3600 + minutes * 60)
        }
    };
    let of_day = i64::from(hour * 3600 + minute * 60 + second) + sign * i64::from(offset);
    let moved = match of_day.div_euclid(86_400) {
        0 => date,
        1.. => following(date)?,
        _ => preceding(date)?,
    };
    Some(Moment { second: u32::try_from(of_day.rem_euclid(86_400)).ok()?, ..moved })
}

fn following(date: Moment) -> Option<Moment> {
    let Moment { year, month, day, .. } = date;
    Some(match (month, day) {
        (12, 31) => Moment { year: year + 1, month: 1, day: 1, ..date },
        _ if day == days(year, month)? => Moment { month: month + 1, day: 1, ..date },
        _ => Moment { day: day + 1, ..date },
    })
}

fn preceding(date: Moment) -> Option<Moment> {
    let Moment { year, month, day, .. } = date;
    Some(match (month, day) {
        (1, 1) => Moment { year: year - 1, month: 12, day: 31, ..date },
        (_, 1) => Moment { month: month - 1, day: days(year, month - 1)?, ..date },
        _ => Moment { day: day - 1, ..date },
    })
}

/// Days of a month of the Gregorian calendar.
fn days(year: u32, month: u32) -> Option<u32> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    Some(match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    })
}

/// Takes exactly so many digits.
fn number(rest: &mut &str, digits: usize) -> Option<u32> {
    let (number, more) = rest.split_at_checked(digits)?;
    *rest = more;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())?
}

/// Takes one character.
fn after(rest: &mut &str, c: char) -> Option<()> {
    *rest = rest.strip_prefix(c)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_come_to_one() {
        for (text, time) in [
            ("2026-11-22", "2026-11-22T00:00:00Z"),
            ("2026-11-22T18:05:09Z", "2026-11-22T18:05:09Z"),
            ("2026-11-22t18:05:09z", "2026-11-22T18:05:09Z"),
            ("2026-11-22T18:05:09.000Z", "2026-11-22T18:05:09Z"),
            ("2026-11-22T18:05:09.001Z", "2026-11-22T18:05:10Z"),
            ("2026-11-22T19:05:09+01:00", "2026-11-22T18:05:09Z"),
            ("2026-03-01T00:30:00+05:45", "2026-02-28T18:45:00Z"),
            ("2024-02-28T23:59:59.5Z", "2024-02-29T00:00:00Z"),
            ("2024-12-31T23:00:00-01:00", "2025-01-01T00:00:00Z"),
            ("2024-01-01T00:00:00+00:01", "2023-12-31T23:59:00Z"),
            ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
        ] {
            assert_eq!(utc(text).as_deref(), Ok(time), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2026",
            "2026-11",
            "2026-13-01",
            "2026-00-01",
            "2025-02-29",
            "2100-02-29",
            "2026-11-00",
            "1969-12-31",
            "2026-1-1",
            "+026-11-22",
            "2026-11-22T",
            "2026-11-22T18:00Z",
            "2026-11-22T18:00:00",
            "2026-11-22T24:00:00Z",
            "2026-11-22T18:60:00Z",
            "2026-11-22T18:00:61Z",
            "2026-11-22T18:00:00.Z",
            "2026-11-22T18:00:00Zx",
            "2026-11-22T18:00:00+1:00",
            "2026-11-22T18:00:00+24:00",
            "2026-11-22 18:00:00Z",
            "2026-11-2\u{e9}",
        ] {
            assert!(utc(text).is_err(), "{text}");
        }
    }
}
