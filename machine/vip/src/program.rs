//! The program: sockets, threads and signals around the state machine.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    path::Path,
    sync::mpsc::{self, RecvTimeoutError, Sender},
    time::Duration,
};

use agent_protocol::{
    Probe,
    programs::{VipConfig, VipStatus},
};
use machine_program::{disk, pause, probe::Asker};
use nix::sys::signal::{SigSet, Signal};

use crate::{
    advert::{Advert, Key, LENGTH},
    card::Card,
    state::{AWAY, Change, EVERY, Member},
};

/// The UDP port of adverts, on the members' addresses in the stamp's network.
pub const PORT: u16 = 7445;
/// Interval of health probes…
const ASK: Duration = Duration::from_millis(250);
/// …their time-out…
const ANSWER: Duration = Duration::from_millis(1000);
/// …and the number of failures in a row after which the member is unhealthy.
const MISSES: u32 = 2;
/// The number of announcements after taking the address, one per advert interval: a frame may get lost.
const ANNOUNCE: u32 = 5;
const STACK: usize = 128 * 1024;

enum News {
    Heard(Advert),
    Health(bool),
    Leave,
}

/// Runs until a signal ends it. `log` receives a line for each change.
///
/// # Errors
/// When it cannot start: an invalid configuration, a missing interface, an address in use.
pub fn run(file: &Path, root: &Path, log: &dyn Fn(&str)) -> Result<(), String> {
    let text = fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let config: VipConfig =
        serde_json::from_slice(&text).map_err(|error| format!("cannot use {}: {error}", file.display()))?;
    let key = hex::decode(&config.key)
        .ok()
        .filter(|key| key.len() == 32)
        .ok_or_else(|| format!("the key in {} is not 32 bytes in hex", file.display()))?;
    // Before any thread starts, so that all inherit the mask.
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    signals
        .thread_block()
        .map_err(|error| format!("cannot block signals: {error}"))?;
    let card = Card::named(&config.interface)
        .map_err(|error| format!("cannot use the interface {}: {error}", config.interface))?;
    // The address may be left over from a program that was killed.
    card.remove(config.address).map_err(|error| {
        format!(
            "cannot remove {} from {}: {error}",
            config.address, config.interface
        )
    })?;
    let socket = UdpSocket::bind(SocketAddrV4::new(config.own, PORT))
        .map_err(|error| format!("cannot receive adverts at {}:{PORT}: {error}", config.own))?;
    let (news, inbox) = mpsc::channel();
    {
        let news = news.clone();
        thread("signals", move || {
            if signals.wait().is_ok() {
                let _ended = news.send(News::Leave);
            }
        })?;
    }
    {
        let (news, probe, root) = (news.clone(), config.health.clone(), root.to_owned());
        thread("health", move || health(&probe, &root, &news))?;
    }
    {
        let socket = socket.try_clone().map_err(|error| error.to_string())?;
        let (key, config) = (Key::new(&key), config.clone());
        thread("ear", move || ear(&socket, &key, &config, &news))?;
    }
    let mut holder = Holder {
        member: Member::new(config.own, pause::monotonic()),
        // Increases across restarts, because it starts from the clock.
        count: u64::try_from(pause::wall().as_micros()).unwrap_or(0),
        announce: 0,
        shown: None,
        key: Key::new(&key),
        card,
        socket,
        config,
    };
    holder.run(&inbox, log);
    Ok(())
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK)
        .spawn(work)
        .map(drop)
        .map_err(|error| format!("cannot start the {name} thread: {error}"))
}

fn health(probe: &Probe, root: &Path, news: &Sender<News>) {
    let (mut asker, mut misses) = (Asker::default(), MISSES);
    loop {
        misses = if asker.ask(root, probe, ANSWER) {
            0
        } else {
            misses.saturating_add(1)
        };
        if news.send(News::Health(misses < MISSES)).is_err() {
            return;
        }
        pause::sleep(ASK);
    }
}

/// Receives adverts of the others, each one once and in order.
fn ear(socket: &UdpSocket, key: &Key, config: &VipConfig, news: &Sender<News>) {
    // The last advert of each: its count and the time it came.
    let mut last: BTreeMap<Ipv4Addr, (u64, Duration)> = BTreeMap::new();
    let mut bytes = [0; LENGTH + 1];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut bytes) else {
            // The kernel reports here that no socket listens at a peer's port.
            continue;
        };
        let Some(advert) = bytes.get(..length).and_then(|bytes| key.open(bytes)) else {
            continue;
        };
        let known = config.peers.contains(&advert.from) && from.ip() == advert.from;
        if !known || advert.vip != config.address {
            continue;
        }
        let now = pause::monotonic();
        let fresh = last.get(&advert.from).is_none_or(|(count, at)| {
            // After a clock was set back, lower counts are accepted once the member has been away.
            *count < advert.count || now.saturating_sub(*at) > AWAY * 4
        });
        if !fresh {
            continue;
        }
        last.insert(advert.from, (advert.count, now));
        if news.send(News::Heard(advert)).is_err() {
            return;
        }
    }
}

struct Holder {
    config: VipConfig,
    member: Member,
    count: u64,
    /// The number of announcements still to be sent.
    announce: u32,
    shown: Option<VipStatus>,
    key: Key,
    card: Card,
    socket: UdpSocket,
}

impl Holder {
    fn run(&mut self, inbox: &mpsc::Receiver<News>, log: &dyn Fn(&str)) {
        let mut tell_at = pause::monotonic();
        loop {
            let now = pause::monotonic();
            let before = self.member.say();
            let (change, leaves) = match inbox.recv_timeout(tell_at.saturating_sub(now)) {
                Ok(News::Heard(advert)) => (
                    self.member.hear(pause::monotonic(), advert.from, advert.say),
                    false,
                ),
                Ok(News::Health(healthy)) => (self.member.feel(pause::monotonic(), healthy), false),
                Ok(News::Leave) | Err(RecvTimeoutError::Disconnected) => {
                    (self.member.leave(pause::monotonic()), true)
                }
                Err(RecvTimeoutError::Timeout) => (self.member.tick(pause::monotonic()), false),
            };
            self.follow(change, log);
            let due = pause::monotonic() >= tell_at;
            if due || leaves || before != self.member.say() {
                self.tell();
                tell_at = pause::monotonic() + EVERY;
            }
            if due && self.announce > 0 {
                self.announce -= 1;
                self.arp(log);
            }
            self.show();
            if leaves {
                return;
            }
        }
    }

    fn follow(&mut self, change: Change, log: &dyn Fn(&str)) {
        let address = self.config.address;
        match change {
            Change::None => {}
            Change::Take => {
                log(&format!("takes {address}"));
                if let Err(error) = self.card.add(address) {
                    log(&format!(
                        "cannot add {address} to {}: {error}",
                        self.config.interface
                    ));
                }
                self.announce = ANNOUNCE;
                self.arp(log);
            }
            Change::Release => {
                log(&format!("releases {address}"));
                self.announce = 0;
                if let Err(error) = self.card.remove(address) {
                    log(&format!(
                        "cannot remove {address} from {}: {error}",
                        self.config.interface
                    ));
                }
            }
            Change::Insist => self.announce = ANNOUNCE,
        }
    }

    fn arp(&self, log: &dyn Fn(&str)) {
        if let Err(error) = self.card.announce(self.config.address) {
            log(&format!(
                "cannot tell neighbours of {}: {error}",
                self.config.address
            ));
        }
    }

    fn tell(&mut self) {
        self.count += 1;
        let advert = self.key.seal(&Advert {
            vip: self.config.address,
            from: self.config.own,
            count: self.count,
            say: self.member.say(),
        });
        for peer in &self.config.peers {
            // A send to an absent member fails, which is expected.
            let _away = self.socket.send_to(&advert, SocketAddrV4::new(*peer, PORT));
        }
    }

    fn show(&mut self) {
        let say = self.member.say();
        let now = VipStatus {
            holds: say.holds,
            healthy: say.healthy,
        };
        if self.shown.as_ref() != Some(&now) {
            let text = serde_json::to_vec(&now).unwrap_or_default();
            if disk::show(Path::new(&self.config.status), &text).is_ok() {
                self.shown = Some(now);
            }
        }
    }
}
