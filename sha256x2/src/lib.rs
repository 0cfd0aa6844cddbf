//! SHA-256 of two slices of bytes at once.
//!
//! A processor's SHA instructions wait for each other within one digest, for two thirds of their time: those of a second
//! digest fit between them. What is left of the longer slice, the padding, and processors without such instructions are
//! for the `sha2` crate.
//! Source: FIPS 180-4; the order of the instructions is that of Intel's "SHA Extensions" paper (Gulley et al., 2013).

use sha2::block_api::compress256;
use sha2::{Digest as _, Sha256};

/// Bytes of a block.
const BLOCK: usize = 64;
/// What a digest begins with (FIPS 180-4, 5.3.3).
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The digests of two slices of bytes.
pub fn of_two(bytes: [&[u8]; 2]) -> [[u8; 32]; 2] {
    let [(first, first_rest), (second, second_rest)] = bytes.map(<[u8]>::as_chunks::<BLOCK>);
    let common = first.len().min(second.len());
    let ((first, first_more), (second, second_more)) = (first.split_at(common), second.split_at(common));
    let mut states = [INITIAL; 2];
    if !compress(&mut states, [first, second]) {
        return bytes.map(of);
    }
    let [first_state, second_state] = states;
    let [first_length, second_length] = bytes.map(<[u8]>::len);
    [end(first_state, first_more, first_rest, first_length), end(second_state, second_more, second_rest, second_length)]
}

/// The digest of one.
pub fn of(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Ends a digest with blocks, what is left behind them, and the padding (FIPS 180-4, 5.1.1).
fn end(mut state: [u32; 8], blocks: &[[u8; BLOCK]], rest: &[u8], length: usize) -> [u8; 32] {
    compress256(&mut state, blocks);
    let bits = (length as u64).wrapping_mul(8).to_be_bytes();
    let zeros = (2 * BLOCK - 1 - bits.len() - rest.len()) % BLOCK;
    let padding = [rest, &[0x80], [0; BLOCK].get(..zeros).unwrap_or_default(), &bits].concat();
    compress256(&mut state, padding.as_chunks().0);
    let mut digest = [0; 32];
    for (place, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *place = word.to_be_bytes();
    }
    digest
}

#[cfg(not(target_arch = "x86_64"))]
fn compress(_: &mut [[u32; 8]; 2], _: [&[[u8; BLOCK]]; 2]) -> bool {
    false
}

/// Takes as many blocks of each as both have; false, and nothing, on a processor that cannot.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "a function for some processors only, called where it was asked whether this is one")]
fn compress(states: &mut [[u32; 8]; 2], blocks: [&[[u8; BLOCK]]; 2]) -> bool {
    let able =
        is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1") && is_x86_feature_detected!("ssse3");
    if able {
        // SAFETY: the processor has the instructions that the function is made of.
        unsafe { x86::compress(states, blocks) };
    }
    able
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x, _mm_setzero_si128,
        _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
    };

    use super::BLOCK;

    /// A digest under way, as the instructions want it: the words a, b, e, f and c, d, g, h.
    #[derive(Clone, Copy)]
    struct State {
        abef: __m128i,
        cdgh: __m128i,
    }

    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    pub(super) fn compress(states: &mut [[u32; 8]; 2], [first, second]: [&[[u8; BLOCK]]; 2]) {
        let [mut one, mut other] = states.map(|state| pack(state));
        let [scheduling @ .., last] = &CONSTANTS;
        for (first, second) in first.iter().zip(second) {
            let before = [one, other];
            let (mut one_words, mut other_words) = (words(first), words(second));
            for constants in scheduling {
                // The two take turns, so that one has something to do while the other waits.
                for constants in constants {
                    let constants = four(*constants);
                    one_words = rounds_and_next(&mut one, one_words, constants);
                    other_words = rounds_and_next(&mut other, other_words, constants);
                }
            }
            for (constants, (one_words, other_words)) in last.iter().zip(one_words.iter().zip(&other_words)) {
                let constants = four(*constants);
                rounds(&mut one, *one_words, constants);
                rounds(&mut other, *other_words, constants);
            }
            let [one_before, other_before] = before;
            add(&mut one, one_before);
            add(&mut other, other_before);
        }
        *states = [unpack(one), unpack(other)];
    }

    /// Four rounds with the first four of sixteen words; returns the others, and behind them the next four (FIPS 180-4,
    /// 6.2.2).
    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn rounds_and_next(state: &mut State, [w0, w1, w2, w3]: [__m128i; 4], constants: __m128i) -> [__m128i; 4] {
        rounds(state, w0, constants);
        let next = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8(w3, w2, 4));
        [w1, w2, w3, _mm_sha256msg2_epu32(next, w3)]
    }

    /// Four rounds.
    #[inline]
    #[target_feature(enable = "sha,sse2")]
    fn rounds(state: &mut State, words: __m128i, constants: __m128i) {
        let sum = _mm_add_epi32(words, constants);
        state.cdgh = _mm_sha256rnds2_epu32(state.cdgh, state.abef, sum);
        state.abef = _mm_sha256rnds2_epu32(state.abef, state.cdgh, _mm_shuffle_epi32(sum, 0x0e));
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn add(state: &mut State, before: State) {
        state.abef = _mm_add_epi32(state.abef, before.abef);
        state.cdgh = _mm_add_epi32(state.cdgh, before.cdgh);
    }

    /// The first is the lowest.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn four([a, b, c, d]: [u32; 4]) -> __m128i {
        _mm_set_epi32(d.cast_signed(), c.cast_signed(), b.cast_signed(), a.cast_signed())
    }

    #[target_feature(enable = "sse2")]
    fn pack([a, b, c, d, e, f, g, h]: [u32; 8]) -> State {
        State { abef: four([f, e, b, a]), cdgh: four([h, g, d, c]) }
    }

    #[target_feature(enable = "sse4.1")]
    fn unpack(state: State) -> [u32; 8] {
        let words = |register| {
            [
                _mm_extract_epi32::<0>(register).cast_unsigned(),
                _mm_extract_epi32::<1>(register).cast_unsigned(),
                _mm_extract_epi32::<2>(register).cast_unsigned(),
                _mm_extract_epi32::<3>(register).cast_unsigned(),
            ]
        };
        let ([f, e, b, a], [h, g, d, c]) = (words(state.abef), words(state.cdgh));
        [a, b, c, d, e, f, g, h]
    }

    /// The sixteen words of a block, which are big-endian in it.
    #[inline]
    #[target_feature(enable = "ssse3")]
    fn words(block: &[u8; BLOCK]) -> [__m128i; 4] {
        let turn = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        let mut words = [_mm_setzero_si128(); 4];
        for (words, bytes) in words.iter_mut().zip(block.as_chunks::<16>().0) {
            let bits = u128::from_le_bytes(*bytes);
            #[expect(clippy::cast_possible_truncation, reason = "the halves are meant")]
            let halves = _mm_set_epi64x((bits >> 64) as i64, bits as i64);
            *words = _mm_shuffle_epi8(halves, turn);
        }
        words
    }

    /// For four rounds each, and four of these (FIPS 180-4, 4.2.2).
    #[rustfmt::skip]
    static CONSTANTS: [[[u32; 4]; 4]; 4] = [
        [
            [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
            [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
            [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
            [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
        ],
        [
            [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
            [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
            [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
            [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
        ],
        [
            [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
            [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
            [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
            [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
        ],
        [
            [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
            [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
            [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
            [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
        ],
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_digests_are_those_of_each() {
        let bytes: Vec<u8> = (0..1 << 16).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let lengths = [0, 1, 55, 56, 63, 64, 65, 119, 120, 127, 128, 1000, 4096, 65_535, 65_536];
        for first in lengths {
            for second in lengths {
                let two = [&bytes[..first], &bytes[bytes.len() - second..]];
                assert_eq!(of_two(two), two.map(of), "{first} and {second} bytes");
            }
        }
        // FIPS 180-4's own example.
        let abc: String = of_two([b"abc", &bytes])[0].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(abc, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
