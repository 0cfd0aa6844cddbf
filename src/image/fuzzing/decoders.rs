//! The decoders of whole files and of chunks.

use std::io::{BufRead as _, Read as _};
use std::thread;

use crate::image::decode;
use crate::image::manifest::Media;
use crate::image::pipe::{self, BLOCK};
use crate::image::whole::Decoder;

/// Beyond this a bomb is a bomb.
const MOST: usize = 4 << 20;
/// The longest input that a pipe takes before anybody reads.
const LONGEST: usize = 2 * BLOCK;

/// A compressed file: it is decoded or refused, and the decoder of chunks never gives other bytes than the one of
/// streams. The first bytes of the input are the length that the chunk should have.
pub fn decoders(input: &[u8]) {
    let Some((length, packed)) = input.split_first_chunk::<3>() else { return };
    let packed = &packed[..packed.len().min(LONGEST)];
    let length = u32::from_le_bytes([length[0], length[1], length[2], 0]) as usize;
    let (streamed, end) = stream(packed);
    assert!(streamed.len() <= MOST);
    for media in [Media::TarGzip, Media::TarZstd] {
        // Both what the input says and what comes out are worth a try.
        for length in [length.min(MOST), streamed.len()] {
            let mut place = vec![0; length];
            if Decoder::new(media).unwrap().decode(packed, &mut place).is_err() || length == 0 {
                continue;
            }
            match &end {
                // A stream goes on where the chunk's only member ends.
                Ok(()) => assert!(streamed.starts_with(&place), "{media:?}: {length} bytes"),
                Err(_) if streamed.len() == MOST => assert!(streamed.starts_with(&place)),
                // Then what follows that member ends just as it does.
                Err(error) => {
                    let alike = packed.ends_with(&(length as u32).to_le_bytes());
                    assert!(media == Media::TarGzip && alike, "{media:?}: {length} bytes: {error:#}");
                }
            }
        }
    }
}

/// What a stream of these bytes decodes to, before it ends or breaks.
fn stream(packed: &[u8]) -> (Vec<u8>, anyhow::Result<()>) {
    let (mut into, mut from) = pipe::pipe(1 + LONGEST / BLOCK);
    let mut rest = packed;
    while !rest.is_empty() {
        let count = rest.read(into.space().unwrap()).unwrap();
        into.wrote(count);
    }
    into.finish();
    let Ok(format) = from.fill_buf().map(decode::sniff).unwrap() else { return (Vec::new(), Ok(())) };
    let (output, mut decoded) = pipe::pipe(2);
    thread::scope(|scope| {
        let decoding = scope.spawn(|| decode::decode(format, from, output));
        let mut bytes = Vec::new();
        while let Ok(block) = decoded.fill_buf() {
            let count = block.len().min(MOST - bytes.len());
            bytes.extend_from_slice(&block[..count]);
            decoded.consume(count);
            if count == 0 {
                break;
            }
        }
        drop(decoded);
        (bytes, decoding.join().expect("the decoder does not panic"))
    })
}
