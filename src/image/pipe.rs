//! A bounded queue of byte blocks between two threads.
//!
//! The blocks are allocated once and go round, because allocating is slow under musl, and both
//! ends sleep while they wait, because spinning takes the core that the other end needs. Where the bytes come in pieces
//! of known length, a block is one of them, which the reader can take as it is.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::vec;

/// Bytes in a block, where pieces have no length of their own.
pub(super) const BLOCK: usize = 256 * 1024;
/// Bytes lie in a block as they do in the pages of their file. Where the kernel copies them from such pages, processors take
/// three times as long for a place that is a few bytes further into its page: each load seems to be of what was stored
/// just before.
const PAGE: usize = 4096;

struct Block {
    bytes: Box<[u8]>,
    start: usize,
    filled: usize,
}

impl Block {
    fn new(room: usize) -> Self {
        Self { bytes: vec![0; room + 2 * PAGE].into_boxed_slice(), start: 0, filled: 0 }
    }

    /// Makes it empty, for bytes that begin at this offset of the file. There is room for any beginning.
    fn begin(&mut self, offset: usize) {
        self.start = self.bytes.as_ptr().align_offset(PAGE).min(PAGE) + offset % PAGE;
        self.filled = 0;
    }

    fn full(&self) -> &[u8] {
        self.bytes.get(self.start..self.start + self.filled).unwrap_or_default()
    }

    fn full_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.start + self.filled).unwrap_or_default()
    }

    /// What is free of its first `end` bytes.
    fn free(&mut self, end: usize) -> Option<&mut [u8]> {
        self.bytes.get_mut(self.start + self.filled..self.start + end)
    }
}

struct State {
    full: VecDeque<Block>,
    free: Vec<Block>,
    finished: bool,
    writer_gone: bool,
    reader_gone: bool,
}

struct Shared {
    state: Mutex<State>,
    to_reader: Condvar,
    to_writer: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the writer fill a block again.
    fn give_back(&self, block: Option<Block>) {
        if let Some(block) = block {
            self.lock().free.push(block);
            self.to_writer.notify_one();
        }
    }
}

/// The other end has gone away; whoever holds it knows why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the neighbouring step has stopped")
    }
}

impl std::error::Error for Gone {}

/// Whether an error only says that a neighbour stopped, and so is not the reason.
pub(super) fn is_consequence(error: &anyhow::Error) -> bool {
    error.chain().any(|link| {
        link.is::<Gone>()
            || link.downcast_ref::<io::Error>().and_then(io::Error::get_ref).is_some_and(|inner| inner.is::<Gone>())
    })
}

/// A pipe of `blocks` blocks.
pub(super) fn pipe(blocks: usize) -> (Writer, Reader) {
    with(blocks, BLOCK, Vec::new())
}

/// A pipe for pieces of these lengths, one in a block, of which there are `blocks`.
pub(super) fn pieces(blocks: usize, lengths: Vec<usize>) -> (Writer, Reader) {
    let most = lengths.iter().copied().max().unwrap_or(BLOCK);
    with(blocks, most, lengths)
}

fn with(blocks: usize, room: usize, lengths: Vec<usize>) -> (Writer, Reader) {
    let free = (0..blocks).map(|_| Block::new(room)).collect();
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            full: VecDeque::with_capacity(blocks),
            free,
            finished: false,
            writer_gone: false,
            reader_gone: false,
        }),
        to_reader: Condvar::new(),
        to_writer: Condvar::new(),
    });
    let lengths = lengths.into_iter();
    let writer = Writer { shared: Arc::clone(&shared), block: None, room, end: room, offset: 0, lengths };
    (writer, Reader { shared, block: None, at: 0 })
}

/// The end that bytes go into. Dropping it without [`Writer::finish`] makes the reader fail.
pub(super) struct Writer {
    shared: Arc<Shared>,
    block: Option<Block>,
    /// Bytes that a block can hold.
    room: usize,
    /// Bytes with which this one is full.
    end: usize,
    /// Bytes before it, modulo what a machine can count.
    offset: usize,
    /// Of the pieces to come.
    lengths: vec::IntoIter<usize>,
}

impl Writer {
    /// Room for at least one byte; waits for the reader when there is none.
    ///
    /// # Errors
    /// The reader is gone.
    pub(super) fn space(&mut self) -> Result<&mut [u8], Gone> {
        if self.block.is_none() {
            let mut state = self.shared.lock();
            self.block = loop {
                if state.reader_gone {
                    return Err(Gone);
                }
                if let Some(mut block) = state.free.pop() {
                    block.begin(self.offset);
                    self.end = self.lengths.next().unwrap_or(self.room);
                    break Some(block);
                }
                state = self.shared.to_writer.wait(state).unwrap_or_else(PoisonError::into_inner);
            };
        }
        self.block.as_mut().and_then(|block| block.free(self.end)).ok_or(Gone)
    }

    /// Says that `count` bytes of [`Writer::space`] were filled. Only full blocks travel.
    pub(super) fn wrote(&mut self, count: usize) {
        if let Some(block) = self.block.as_mut() {
            block.filled = (block.filled + count).min(self.end);
            if block.filled == self.end {
                self.send();
            }
        }
    }

    /// Sends what is left; the reader then sees the end.
    pub(super) fn finish(mut self) {
        self.send();
        self.shared.lock().finished = true;
    }

    /// Sleeps, but not after the reader has gone.
    ///
    /// # Errors
    /// The reader is gone.
    pub(super) fn sleep(&self, time: Duration) -> Result<(), Gone> {
        let state = self.shared.lock();
        let (state, _) = self
            .shared
            .to_writer
            .wait_timeout_while(state, time, |state| !state.reader_gone)
            .unwrap_or_else(PoisonError::into_inner);
        if state.reader_gone { Err(Gone) } else { Ok(()) }
    }

    fn send(&mut self) {
        if let Some(block) = self.block.take() {
            self.offset = self.offset.wrapping_add(block.filled);
            self.shared.lock().full.push_back(block);
            self.shared.to_reader.notify_one();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().writer_gone = true;
        self.shared.to_reader.notify_one();
    }
}

/// Closes a pipe from outside: both ends stop waiting.
pub(super) struct Closer(Arc<Shared>);

impl Closer {
    /// Makes the next call at either end fail, and one that waits now.
    pub(super) fn close(&self) {
        self.0.lock().reader_gone = true;
        self.0.to_writer.notify_all();
        self.0.to_reader.notify_all();
    }
}

/// The end that bytes come out of.
pub(super) struct Reader {
    shared: Arc<Shared>,
    block: Option<Block>,
    at: usize,
}

impl Reader {
    /// For another thread to close the pipe with, while this end may be waiting.
    pub(super) fn closer(&self) -> Closer {
        Closer(Arc::clone(&self.shared))
    }

    /// The next piece as it is, or whatever a block still holds; none at the end.
    ///
    /// # Errors
    /// The writer is gone without having finished.
    pub(super) fn piece(&mut self) -> io::Result<Option<Taken>> {
        let block = self.next()?;
        Ok(block.map(|block| Taken { shared: Arc::clone(&self.shared), block: Some(block) }))
    }

    /// A piece that need not be waited for.
    pub(super) fn piece_at_hand(&mut self) -> Option<Taken> {
        let block = self.shared.lock().full.pop_front()?;
        Some(Taken { shared: Arc::clone(&self.shared), block: Some(block) })
    }

    fn next(&self) -> io::Result<Option<Block>> {
        let mut state = self.shared.lock();
        loop {
            if let Some(block) = state.full.pop_front() {
                return Ok(Some(block));
            }
            if state.finished {
                return Ok(None);
            }
            if state.writer_gone || state.reader_gone {
                return Err(io::Error::other(Gone));
            }
            state = self.shared.to_reader.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn rest(&self) -> &[u8] {
        self.block.as_ref().and_then(|block| block.full().get(self.at..)).unwrap_or_default()
    }
}

impl BufRead for Reader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.rest().is_empty() {
            self.shared.give_back(self.block.take());
            self.at = 0;
            self.block = self.next()?;
        }
        Ok(self.rest())
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

impl Read for Reader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut bytes = self.fill_buf()?;
        let count = bytes.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.lock().reader_gone = true;
        self.shared.to_writer.notify_one();
    }
}

/// A block that a reader took: the writer fills it again when this is dropped.
pub(super) struct Taken {
    shared: Arc<Shared>,
    block: Option<Block>,
}

impl Taken {
    /// What it holds.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        self.block.as_mut().map(Block::full_mut).unwrap_or_default()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.shared.give_back(self.block.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_all(writer: &mut Writer, mut bytes: &[u8]) -> Result<(), Gone> {
        while !bytes.is_empty() {
            let count = bytes.read(writer.space()?).unwrap();
            writer.wrote(count);
        }
        Ok(())
    }

    #[test]
    fn bytes_arrive_in_order() {
        let sent: Vec<u8> = (0..3 * BLOCK + 17).map(|i| (i % 251) as u8).collect();
        let (mut writer, mut reader) = pipe(2);
        let copy = sent.clone();
        let thread = std::thread::spawn(move || {
            write_all(&mut writer, &copy).unwrap();
            writer.finish();
        });
        let mut received = Vec::new();
        reader.read_to_end(&mut received).unwrap();
        thread.join().unwrap();
        assert_eq!(received, sent);
    }

    #[test]
    fn pieces_come_one_by_one() {
        let lengths = [3, BLOCK + 1, 1, 700];
        let (mut writer, mut reader) = pieces(2, lengths.to_vec());
        let total: usize = lengths.iter().sum();
        let thread = std::thread::spawn(move || {
            write_all(&mut writer, &vec![7; total + 2]).unwrap();
            writer.finish();
        });
        for length in lengths {
            assert_eq!(reader.piece().unwrap().unwrap().bytes(), vec![7; length]);
        }
        assert_eq!(reader.piece().unwrap().unwrap().bytes(), [7, 7], "what nobody announced");
        assert!(reader.piece().unwrap().is_none());
        thread.join().unwrap();
    }

    #[test]
    fn a_writer_that_fails_is_not_the_end() {
        let (mut writer, mut reader) = pipe(2);
        write_all(&mut writer, b"some").unwrap();
        drop(writer);
        let error = anyhow::Error::new(reader.read_to_end(&mut Vec::new()).unwrap_err());
        assert!(is_consequence(&error.context("decoding")));
    }

    #[test]
    fn a_closed_pipe_wakes_both_ends() {
        let (mut writer, mut reader) = pipe(1);
        let closer = reader.closer();
        let reading = std::thread::spawn(move || {
            let error = reader.read(&mut [0]).unwrap_err();
            (is_consequence(&error.into()), reader)
        });
        closer.close();
        let (consequence, _reader) = reading.join().unwrap();
        assert!(consequence);
        assert!(writer.space().is_err());
    }

    #[test]
    fn a_reader_that_stops_wakes_the_writer() {
        let (mut writer, reader) = pipe(1);
        let thread = std::thread::spawn(move || {
            let bytes = vec![0; 3 * BLOCK];
            (write_all(&mut writer, &bytes), writer.sleep(Duration::from_secs(600)))
        });
        drop(reader);
        assert_eq!(thread.join().unwrap(), (Err(Gone), Err(Gone)));
    }
}
