//! A disk with a cache, for a machine that QEMU makes up: what was not flushed when the machine
//! ended is forgotten, all of it or some pieces here and there.
//!
//! It speaks the network block device protocol, as far as QEMU needs it:
//! <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;

/// What a machine reads and writes at least, in bytes.
const SECTOR: usize = 512;

/// Sectors that are kept or forgotten together: 4 KiB, as in disks that are made today. ext4 of Linux
/// 6.1 counts on something like it: when half of a block of 1 KiB had been written, it once did not
/// mount ("Structure needs cleaning").
const SECTORS_A_PIECE: usize = 8;

const OPTION_MAGIC: &[u8; 8] = b"IHAVEOPT";
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;

pub(super) struct Disk {
    pub(super) port: u16,
    is_ending: Arc<AtomicBool>,
    is_cut: Arc<AtomicBool>,
}

impl Disk {
    /// What it forgets in a power cut, and how long a flush takes, is drawn from `random`.
    pub(super) fn start(content: Vec<u8>, mut random: Rng) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (is_ending, is_cut) = (Arc::default(), Arc::default());
        let (ends, cut): (Arc<AtomicBool>, Arc<AtomicBool>) =
            (Arc::clone(&is_ending), Arc::clone(&is_cut));
        std::thread::spawn(move || {
            let (cached, pauses) = (BTreeMap::new(), random.fork());
            let mut platter = Platter { safe: content, cached, pauses, is_cut: cut };
            for machine in listener.incoming().flatten() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                // The connection ends with the machine.
                let end = platter.serve(machine).unwrap_err();
                platter.cut_power(&mut random);
                assert!(end.kind() != io::ErrorKind::InvalidData, "{end}");
            }
        });
        Self { port, is_ending, is_cut }
    }

    /// From now on, until the next machine connects, nothing reaches the disk and it answers nothing.
    pub(super) fn cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.is_ending.store(true, Ordering::Relaxed);
        TcpStream::connect(("127.0.0.1", self.port)).ok();
    }
}

struct Platter {
    safe: Vec<u8>,
    /// What was written since the last flush, by the number of the sector.
    cached: BTreeMap<usize, [u8; SECTOR]>,
    pauses: Rng,
    is_cut: Arc<AtomicBool>,
}

impl Platter {
    fn cut_power(&mut self, random: &mut Rng) {
        let kept = *random.choice(&[0.0, 0.1, 0.5, 0.9]).unwrap();
        let cached = self.cached.len();
        let mut last = (None, false);
        self.cached.retain(|sector, _| {
            let piece = Some(sector / SECTORS_A_PIECE);
            if piece != last.0 {
                last = (piece, random.f64() < kept);
            }
            last.1
        });
        eprintln!("the disk kept {} of {cached} sectors not flushed", self.cached.len());
        self.flush();
    }

    fn flush(&mut self) {
        for (sector, bytes) in std::mem::take(&mut self.cached) {
            self.safe[sector * SECTOR..][..SECTOR].copy_from_slice(&bytes);
        }
    }

    /// Never `Ok`: one serves for as long as the other side is there.
    fn serve(&mut self, mut machine: TcpStream) -> io::Result<std::convert::Infallible> {
        self.is_cut.store(false, Ordering::Relaxed);
        machine.set_nodelay(true)?;
        self.negotiate(&mut machine)?;
        loop {
            if number::<4, u32>(&mut machine, u32::from_be_bytes)? != REQUEST_MAGIC {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let _flags = number::<2, _>(&mut machine, u16::from_be_bytes)?;
            let request = number::<2, _>(&mut machine, u16::from_be_bytes)?;
            let cookie = number::<8, _>(&mut machine, u64::from_be_bytes)?;
            let offset = number::<8, _>(&mut machine, u64::from_be_bytes)?;
            let length = number::<4, _>(&mut machine, u32::from_be_bytes)?;
            let (offset, length) =
                (usize::try_from(offset).unwrap(), usize::try_from(length).unwrap());
            assert!(offset % SECTOR == 0 && length % SECTOR == 0);
            let sectors = (offset / SECTOR)..((offset + length) / SECTOR);
            self.must_have_power(&mut machine)?;
            let mut reply =
                [&REPLY_MAGIC.to_be_bytes()[..], &[0; 4], &cookie.to_be_bytes()].concat();
            match request {
                0 => {
                    for sector in sectors {
                        let safe = &self.safe[sector * SECTOR..][..SECTOR];
                        reply.extend(self.cached.get(&sector).map_or(safe, |bytes| bytes));
                    }
                }
                1 => {
                    let mut data = vec![0; length];
                    machine.read_exact(&mut data)?;
                    self.cached.extend(sectors.zip(data.as_chunks().0.iter().copied()));
                }
                3 => {
                    // A disk takes its time, and the power may go meanwhile.
                    std::thread::sleep(Duration::from_micros(self.pauses.u64(..20_000)));
                    self.must_have_power(&mut machine)?;
                    self.flush();
                }
                _ => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
            machine.write_all(&reply)?;
        }
    }

    /// Without it nothing happens until the machine has ended.
    fn must_have_power(&self, machine: &mut TcpStream) -> io::Result<()> {
        if self.is_cut.load(Ordering::Relaxed) {
            io::copy(machine, &mut io::sink())?;
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn negotiate(&self, machine: &mut TcpStream) -> io::Result<()> {
        const FIXED_NEWSTYLE: u16 = 1;
        /// It has flags, and takes flushes.
        const EXPORT_FLAGS: u16 = 1 | 4;
        machine
            .write_all(&[b"NBDMAGIC", &OPTION_MAGIC[..], &FIXED_NEWSTYLE.to_be_bytes()].concat())?;
        number::<4, _>(machine, u32::from_be_bytes)?;
        loop {
            number::<8, _>(machine, u64::from_be_bytes)?;
            let option = number::<4, _>(machine, u32::from_be_bytes)?;
            let length = number::<4, _>(machine, u32::from_be_bytes)?;
            machine.read_exact(&mut vec![0; usize::try_from(length).unwrap()])?;
            let mut reply = |kind: u32, data: &[u8]| {
                let length = u32::try_from(data.len()).unwrap().to_be_bytes();
                let magic = OPTION_REPLY_MAGIC.to_be_bytes();
                let head = [&magic[..], &option.to_be_bytes(), &kind.to_be_bytes(), &length];
                machine.write_all(&[&head.concat(), data].concat())
            };
            // "Go", answered with size and flags; all else is not supported.
            if option == 7 {
                let size = self.safe.len() as u64;
                reply(
                    3,
                    &[&[0; 2][..], &size.to_be_bytes(), &EXPORT_FLAGS.to_be_bytes()].concat(),
                )?;
                return reply(1, &[]);
            }
            reply(0x8000_0001, &[])?;
        }
    }
}

fn number<const N: usize, T>(machine: &mut TcpStream, from: fn([u8; N]) -> T) -> io::Result<T> {
    let mut bytes = [0; N];
    machine.read_exact(&mut bytes)?;
    Ok(from(bytes))
}
