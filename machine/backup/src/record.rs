//! Records every change of etcd, and bases in between.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Write as _,
    path::Path,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    time::Duration,
};

use cluster_backup::{Change, Entry, Lease, ObjectName, base::BaseWriter, log::LogWriter};
use machine_etcd::client::{Batch, Client, EtcdError, Kind};
use machine_program::pause;

use crate::{
    now,
    service::{OWN, Service},
    shared::Shared,
    spool::Spool,
};

/// Upper bound of the time until a change is on the disk.
const SYNC: Duration = Duration::from_millis(100);
/// Interval of the leadership check and of the status.
const TICK: Duration = Duration::from_secs(2);
/// Pause after a failed base.
const BASE_RETRY: Duration = Duration::from_secs(5);
/// Minimum interval between bases that the shipper requests.
const WISH_EVERY: Duration = Duration::from_secs(30);
/// A log shorter than this is not worth a base, however small the base is.
const SMALL: u64 = 8 * 1024 * 1024;
/// Above this size on the disk, data that the service does not have is dropped in favour of newer data.
const SPOOL: u64 = 1024 * 1024 * 1024;
/// After a longer break, another machine may have led and shipped.
const BREAK: i64 = 10_000;
/// Approximate bytes of a page of a base.
const PAGE: usize = 512 * 1024;
/// The range of all keys: from the first to the last.
const ALL: &[u8] = &[0];
/// etcd sends a progress notification every ten minutes.
const SILENCE: Duration = Duration::from_secs(15 * 60);
/// Batches on their way from the watch to the disk.
const BATCHES: usize = 2;

/// Messages to the writer.
enum News {
    Batch(Batch),
    WatchEnded(EtcdError),
    Base(Result<(ObjectName, u64), String>),
}

/// The dependencies of a session.
pub(crate) struct Recorder<'a> {
    pub(crate) root: &'a Path,
    pub(crate) connect: &'a dyn Fn() -> Result<Client, EtcdError>,
    pub(crate) spool: Spool,
    pub(crate) shared: Arc<Shared>,
    pub(crate) base_every: Duration,
    /// Called at least every [`TICK`].
    pub(crate) tick: &'a dyn Fn(),
}

/// The reason for the end of a session.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Another member leads.
    StandsBy,
    /// Changes are missing: the next session begins with a base.
    Gap,
    /// A failure.
    Failed(String),
}

fn away(error: EtcdError) -> End {
    End::Failed(error.to_string())
}

/// The start of a session.
struct Start {
    revision: i64,
    /// The earliest time that changes are recorded with, milliseconds since 1970.
    seen: i64,
    /// The log to continue.
    log: i64,
    needs_base: bool,
}

impl Recorder<'_> {
    /// Records until the session ends. `gap`: the recording on the disk cannot be continued.
    pub(crate) fn session(&self, gap: bool) -> End {
        match self.record(gap) {
            Ok(end) | Err(end) => end,
        }
    }

    fn start(&self, etcd: &Client, gap: bool) -> Result<Start, End> {
        let failed = |why: String| End::Failed(why);
        let newest = etcd.range(ALL, ALL, 0, 1).map_err(away)?.header.revision;
        let chain = self.spool.chain().ok();
        let seen = chain.as_ref().map_or(0, |chain| chain.until);
        let anew = Start {
            revision: newest,
            seen,
            log: newest,
            needs_base: true,
        };
        if chain.as_ref().is_some_and(|chain| chain.last > newest) {
            self.spool
                .set_aside()
                .map_err(|error| failed(format!("cannot set the former history aside: {error}")))?;
            return Ok(anew);
        }
        if gap {
            return Ok(anew);
        }
        let shipped = || {
            let names = Service::of_machine(self.root).ok()?.list(OWN).ok()?;
            let chain = cluster_backup::chain::select(&names, None).ok()?;
            (chain.last <= newest).then_some(chain)
        };
        match chain {
            Some(chain) if now() - chain.until < BREAK => Ok(self.go_on(&chain, false)),
            Some(own) => match shipped().filter(|shipped| shipped.last > own.last) {
                Some(shipped) => Ok(self.go_on(&shipped, true)),
                None => Ok(self.go_on(&own, false)),
            },
            None => Ok(shipped().map_or(anew, |shipped| self.go_on(&shipped, true))),
        }
    }

    fn go_on(&self, chain: &cluster_backup::chain::Chain, needs_base: bool) -> Start {
        // The log that ends there, if this machine wrote it.
        let own = self.spool.logs().into_iter().rev().find(|log| {
            log.name.map_or(
                log.after == chain.last,
                |name| matches!(name, ObjectName::Log { last, .. } if last == chain.last),
            )
        });
        Start {
            revision: chain.last,
            seen: chain.until,
            log: own.map_or(chain.last, |log| log.after),
            needs_base,
        }
    }

    fn record(&self, gap: bool) -> Result<End, End> {
        let etcd = (self.connect)().map_err(away)?;
        if !self.leads(&etcd)? {
            return Ok(End::StandsBy);
        }
        let start = self.start(&etcd, gap)?;
        let bases = self.spool.bases();
        let base = bases.iter().max_by_key(|base| base.until()).copied();
        {
            let mut state = self.shared.state();
            state.begin(start.revision);
            state.base = base;
            state.base_coming = start.needs_base || base.is_none() || state.base_wished;
            state.writing = None;
        }
        let (tell, news) = mpsc::sync_channel(BATCHES);
        let mut writer = Writer {
            recorder: self,
            etcd,
            log: LogWriter::after(start.revision, start.seen.max(0)),
            file: self.open(start.log, start.revision)?,
            file_after: start.log,
            since_base: 0,
            base_size: base
                .and_then(|base| std::fs::metadata(self.spool.path(&base.to_string())).ok())
                .map_or(0, |metadata| metadata.len()),
            base_at: base.map(|base| base.until()),
            base_due: start.needs_base || base.is_none(),
            base_not_before: Duration::ZERO,
            wish_not_before: Duration::ZERO,
            making_base: false,
            leases: BTreeSet::new(),
            waiting_since: None,
            tell,
        };
        writer.watch(start.revision + 1)?;
        let end = writer.run(&news);
        // Recorded changes are kept, whatever the reason for the end of the session.
        let flushed = writer.flush();
        end.and_then(|end| flushed.map(|()| end))
    }

    fn leads(&self, etcd: &Client) -> Result<bool, End> {
        let leads = etcd.status().map_err(away)?.leads();
        self.shared.state().leads = leads;
        Ok(leads)
    }

    fn open(&self, after: i64, last: i64) -> Result<File, End> {
        self.spool
            .append(after, last)
            .map_err(|error| End::Failed(format!("cannot write the log: {error}")))
    }
}

struct Writer<'a> {
    recorder: &'a Recorder<'a>,
    etcd: Client,
    log: LogWriter,
    file: File,
    /// The start revision of the current log file.
    file_after: i64,
    /// Bytes of log since the newest base.
    since_base: u64,
    base_size: u64,
    /// Milliseconds since 1970.
    base_at: Option<i64>,
    base_due: bool,
    base_not_before: Duration,
    wish_not_before: Duration,
    making_base: bool,
    /// Leases whose length was recorded since the newest base.
    leases: BTreeSet<i64>,
    /// The time since which unflushed changes wait.
    waiting_since: Option<Duration>,
    tell: SyncSender<News>,
}

impl Writer<'_> {
    fn watch(&self, from: i64) -> Result<(), End> {
        let etcd = (self.recorder.connect)().map_err(away)?;
        let tell = self.tell.clone();
        thread("watch", move || {
            let told = etcd.watch(ALL, ALL, from, SILENCE).and_then(|mut watch| {
                loop {
                    let batch = watch.next()?;
                    if !batch.events.is_empty() && tell.send(News::Batch(batch)).is_err() {
                        return Ok(());
                    }
                }
            });
            if let Err(error) = told {
                // The receiver is gone: the error does not matter then.
                let _ended = tell.send(News::WatchEnded(error));
            }
        })
    }

    fn run(&mut self, news: &Receiver<News>) -> Result<End, End> {
        let mut next_tick = pause::monotonic() + TICK;
        loop {
            if self.wants_base() {
                self.begin_base()?;
            }
            let now = pause::monotonic();
            let sync_at = self.waiting_since.map_or(next_tick, |since| since + SYNC);
            match news.recv_timeout(sync_at.min(next_tick).saturating_sub(now)) {
                Ok(News::Batch(batch)) => self.take(batch)?,
                Ok(News::WatchEnded(EtcdError::Compacted { .. })) => return Ok(End::Gap),
                Ok(News::WatchEnded(error)) => return Err(away(error)),
                Ok(News::Base(made)) => self.base_made(made),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(End::Failed("the watch is gone".to_owned()));
                }
            }
            let now = pause::monotonic();
            if self.waiting_since.is_some_and(|since| now >= since + SYNC) {
                self.flush()?;
            }
            if now >= next_tick {
                next_tick = now + TICK;
                (self.recorder.tick)();
                if !self.recorder.leads(&self.etcd)? {
                    return Ok(End::StandsBy);
                }
            }
        }
    }

    fn take(&mut self, batch: Batch) -> Result<(), End> {
        let wrong = |error: cluster_backup::BackupError| End::Failed(error.to_string());
        let seen = now().max(self.log.last_seen());
        for event in batch.events {
            let kv = event.kv;
            if self.log.is_full() && kv.mod_revision > self.log.last() {
                self.write()?;
            }
            if kv.lease != 0
                && self.leases.insert(kv.lease)
                && let Ok(Some(ttl)) = self.etcd.lease(kv.lease)
            {
                self.log.lease(Lease { id: kv.lease, ttl });
            }
            let now = (event.kind == Kind::Put).then_some((kv.value, kv.lease));
            let (revision, key) = (kv.mod_revision, kv.key);
            self.log
                .add(&Change {
                    revision,
                    seen,
                    key,
                    now,
                })
                .map_err(wrong)?;
        }
        self.waiting_since.get_or_insert_with(pause::monotonic);
        Ok(())
    }

    /// Closes the frame and writes it to the file.
    fn write(&mut self) -> Result<(), End> {
        let failed = |error: String| End::Failed(format!("cannot write the log: {error}"));
        let (head, bytes) = self.log.flush().map_err(|error| failed(error.to_string()))?;
        self.file
            .write_all(&bytes)
            .map_err(|error| failed(error.to_string()))?;
        self.since_base += bytes.len() as u64;
        let mut state = self.recorder.shared.state();
        state.wrote(head.last, head.first_seen);
        Ok(())
    }

    /// Flushes all recorded changes to the disk.
    fn flush(&mut self) -> Result<(), End> {
        self.waiting_since = None;
        if self.log.is_empty() {
            return Ok(());
        }
        self.write()?;
        self.file
            .sync_data()
            .map_err(|error| End::Failed(format!("cannot write the log: {error}")))?;
        self.recorder.shared.ring();
        Ok(())
    }

    fn wants_base(&mut self) -> bool {
        if std::mem::take(&mut self.recorder.shared.state().base_wished) {
            self.base_due = true;
            // The first base at once; repeated requests must not keep etcd busy.
            self.base_not_before = self.base_not_before.max(self.wish_not_before);
            self.wish_not_before = pause::monotonic().max(self.wish_not_before) + WISH_EVERY;
        }
        let every = i64::try_from(self.recorder.base_every.as_millis()).unwrap_or(i64::MAX);
        let due = self.base_due
            || self.since_base > self.base_size.max(SMALL)
            || self.base_at.is_none_or(|at| now() - at >= every);
        due && !self.making_base && pause::monotonic() >= self.base_not_before
    }

    /// Starts a base at the newest recorded revision; later changes go into another file.
    fn begin_base(&mut self) -> Result<(), End> {
        self.flush()?;
        let revision = self.log.last();
        if revision != self.file_after {
            self.file = self.recorder.open(revision, revision)?;
            self.file_after = revision;
        }
        let at = now().max(self.log.last_seen());
        self.log.not_before(at);
        self.making_base = true;
        self.recorder.shared.state().base_coming = true;
        let etcd = (self.recorder.connect)().map_err(away)?;
        let (spool, tell) = (self.recorder.spool.clone(), self.tell.clone());
        thread("base", move || {
            let made = make_base(&etcd, &spool, revision, at);
            // The session may have ended.
            let _ended = tell.send(News::Base(made));
        })
    }

    fn base_made(&mut self, made: Result<(ObjectName, u64), String>) {
        self.making_base = false;
        match made {
            Ok((name, size)) => {
                self.base_due = false;
                self.base_at = Some(name.until());
                self.base_size = size;
                self.since_base = 0;
                self.leases.clear();
                let (acknowledged, base_shipped) = {
                    let mut state = self.recorder.shared.state();
                    state.base = Some(name);
                    state.base_coming = state.base_wished;
                    state.writing = None;
                    (state.acknowledged, state.base_shipped)
                };
                let full = self.recorder.spool.size() > SPOOL;
                self.recorder.spool.tidy(self.file_after, |name| match name {
                    ObjectName::Log { last, .. } => full || *last <= acknowledged,
                    // The service needs the base as long as it does not have it: later logs are changes to
                    // it.
                    ObjectName::Base { at, .. } => full || *at <= base_shipped,
                });
                self.recorder.shared.ring();
            }
            Err(why) => {
                self.base_due = true;
                self.base_not_before = pause::monotonic() + BASE_RETRY;
                self.recorder.shared.state().writing = Some(format!("cannot make a base: {why}"));
            }
        }
        (self.recorder.tick)();
    }
}

/// All keys at a revision, page by page.
fn make_base(etcd: &Client, spool: &Spool, revision: i64, at: i64) -> Result<(ObjectName, u64), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let mut file = spool.begin_base().map_err(|error| text(&error))?;
    let mut writer = BaseWriter::new(revision, at);
    let (mut from, mut limit, mut size) = (ALL.to_vec(), 32, 0);
    let mut leases = BTreeSet::new();
    loop {
        let page = etcd
            .range(&from, ALL, revision, i64::try_from(limit).unwrap_or(1))
            .map_err(|error| text(&error))?;
        let (mut bytes, count) = (0, page.kvs.len());
        let mut last = None;
        for kv in page.kvs {
            bytes += kv.key.len() + kv.value.len();
            if kv.lease != 0 {
                leases.insert(kv.lease);
            }
            let entry = Entry {
                key: kv.key,
                value: kv.value,
                revision: kv.mod_revision,
                lease: kv.lease,
            };
            if let Some(block) = writer.add(&entry).map_err(|error| text(&error))? {
                size += block.len() as u64;
                file.write(&block).map_err(|error| text(&error))?;
            }
            last = Some(entry.key);
        }
        match last.filter(|_| page.more) {
            // The next key after it.
            Some(mut last) => {
                last.push(0);
                from = last;
            }
            None => break,
        }
        limit = (PAGE * count / bytes.max(1)).clamp(1, 1000);
    }
    let mut known = Vec::new();
    for id in leases {
        if let Ok(Some(ttl)) = etcd.lease(id) {
            known.push(Lease { id, ttl });
        }
    }
    let (block, _) = writer.finish(&known).map_err(|error| text(&error))?;
    size += block.len() as u64;
    file.write(&block).map_err(|error| text(&error))?;
    let name = ObjectName::Base { revision, at };
    spool.finish_base(file, name).map_err(|error| text(&error))?;
    Ok((name, size))
}

/// Starts a thread with a small stack.
pub(crate) fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), End> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(512 * 1024)
        .spawn(work)
        .map(drop)
        .map_err(|error| End::Failed(format!("cannot start a thread: {error}")))
}
