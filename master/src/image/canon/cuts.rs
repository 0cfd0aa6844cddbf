//! Where the canonical archive is cut into chunks. No I/O.

use super::{BLOCK, PAGE};

/// Bytes that a chunk unpacks to at most, but for the end mark in the last one. More than an extended header, and few
/// enough that a worker's memory holds three.
pub(crate) const CHUNK: u64 = 3 << 19;
/// An entry of at most this size is not cut: a chunk that it does not fit into ends early instead.
const WHOLE: u64 = CHUNK / 8;

/// Where a chunk begins: this many bytes into an entry. Beyond its header these are multiples of a page of the
/// file's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) entry: usize,
    pub(crate) offset: u64,
}

/// Where the chunks of an archive begin, given the length of each entry's header and of its data.
pub(crate) fn cuts(entries: impl IntoIterator<Item = (u64, u64)>) -> Vec<Cut> {
    let mut cuts = vec![Cut { entry: 0, offset: 0 }];
    let mut used = 0;
    for (entry, (header, data)) in entries.into_iter().enumerate() {
        let total = header + data.next_multiple_of(BLOCK);
        if used > 0 && used + total > CHUNK && (total <= WHOLE || used + header + WHOLE > CHUNK) {
            cuts.push(Cut { entry, offset: 0 });
            used = 0;
        }
        if used + total <= CHUNK {
            used += total;
            continue;
        }
        let first = CHUNK.saturating_sub(used + header) / PAGE * PAGE;
        let mut offset = header + first;
        let mut left = data.saturating_sub(first);
        cuts.push(Cut { entry, offset });
        while left > CHUNK {
            offset += CHUNK;
            left -= CHUNK;
            cuts.push(Cut { entry, offset });
        }
        used = left.next_multiple_of(BLOCK);
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(entry: usize, offset: u64) -> Cut {
        Cut { entry, offset }
    }

    #[test]
    fn small_entries_stay_whole_and_large_ones_are_cut_at_pages() {
        assert_eq!(cuts([]), [at(0, 0)]);
        assert_eq!(cuts([(512, 0), (512, 1000)]), [at(0, 0)]);
        // To the byte.
        assert_eq!(cuts([(512, CHUNK - 512), (512, 0)]), [at(0, 0), at(1, 0)]);
        assert_eq!(cuts([(512, 1_000_000), (512, 200_000), (512, 200_000)]), [at(0, 0)]);
        assert_eq!(cuts([(512, 1_000_000), (512, 200_000), (512, 200_000), (512, 260_000)]), [at(0, 0), at(3, 0)]);
        // A large one fills the chunk up to a page.
        let first = (CHUNK - 1_000_448 - 512 - 1024) / PAGE * PAGE;
        let cut = cuts([(512, 1_000_000), (1024, 3_000_000), (512, 0)]);
        assert_eq!(cut, [at(0, 0), at(1, 1024 + first), at(1, 1024 + first + CHUNK)]);
        // Data that ends with a chunk has no padding after it.
        assert_eq!(cuts([(512, CHUNK - PAGE + CHUNK), (512, 0)]), [at(0, 0), at(0, 512 + CHUNK - PAGE), at(1, 0)]);
    }

    /// Numbers that look random, always the same.
    fn numbers() -> impl FnMut(u64) -> u64 {
        let mut state = 1_u64;
        move |below| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        }
    }

    #[test]
    fn whatever_the_sizes_are_the_contract_holds() {
        let mut below = numbers();
        for _ in 0..200 {
            let count = below(60) as usize;
            let entries: Vec<(u64, u64)> = (0..count)
                .map(|_| {
                    (
                        512 * (1 + below(4) + below(50) / 49 * 2048),
                        [0, below(4096), below(3 << 20), CHUNK * below(4)][below(4) as usize],
                    )
                })
                .collect();
            let starts: Vec<u64> = entries
                .iter()
                .scan(0, |sum, (header, data)| {
                    let start = *sum;
                    *sum += header + data.next_multiple_of(BLOCK);
                    Some(start)
                })
                .collect();
            let end = entries.last().map_or(0, |(h, d)| starts[count - 1] + h + d.next_multiple_of(BLOCK));
            let cuts = cuts(entries.iter().copied());
            let places: Vec<u64> =
                cuts.iter().map(|cut| starts.get(cut.entry).unwrap_or(&0) + cut.offset).chain([end]).collect();
            for (cut, place) in cuts.iter().zip(places.windows(2)) {
                assert!(place[0] < place[1] || count == 0, "{entries:?}: {cuts:?}");
                assert!(place[1] - place[0] <= CHUNK, "{entries:?}: {cuts:?}");
                if cut.offset > 0 {
                    let (header, data) = entries[cut.entry];
                    assert!(cut.offset > header && cut.offset - header < data && (cut.offset - header) % PAGE == 0);
                }
            }
            let all: u64 = places.windows(2).map(|place| place[1] - place[0]).sum();
            assert_eq!(all, end);
        }
    }
}
