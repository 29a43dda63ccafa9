//! The network interface that holds the address: netlink and ARP, as plain messages.

use std::{
    fs, io,
    net::Ipv4Addr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::libc;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice, recv, send, socket_with,
};

const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
/// Flags of a netlink request with acknowledgement; the address is created or replaced.
const REQUEST: u16 = 0x1 | 0x4;
const CREATE: u16 = 0x400 | 0x100;

/// A network interface of this machine.
pub struct Card {
    index: u32,
    hardware: [u8; 6],
    netlink: OwnedFd,
    packets: OwnedFd,
}

impl Card {
    /// The interface of this name.
    ///
    /// # Errors
    /// When it does not exist, or the kernel denies access.
    pub fn named(name: &str) -> io::Result<Self> {
        let open = |family, kind, protocol| socket_with(family, kind, SocketFlags::CLOEXEC, protocol);
        // Protocol 0 is routing and addresses.
        let netlink = open(AddressFamily::NETLINK, SocketType::RAW, None)?;
        // Without a protocol it receives nothing; it only sends.
        let packets = open(AddressFamily::PACKET, SocketType::RAW, None)?;
        let index = netdevice::name_to_index(&netlink, name)?;
        let text = fs::read_to_string(format!("/sys/class/net/{name}/address"))?;
        let bytes = hex::decode(text.trim().replace(':', "")).ok();
        let hardware = bytes
            .and_then(|bytes| <[u8; 6]>::try_from(bytes).ok())
            .ok_or_else(|| io::Error::other(format!("{name} has no hardware address")))?;
        Ok(Self {
            index,
            hardware,
            netlink,
            packets,
        })
    }

    /// Adds an address, as a /32. Adding an existing address succeeds.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add(&self, address: Ipv4Addr) -> io::Result<()> {
        self.change(NEW_ADDRESS, REQUEST | CREATE, address)
    }

    /// Removes an address. Removing a missing address succeeds.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&self, address: Ipv4Addr) -> io::Result<()> {
        match self.change(DELETE_ADDRESS, REQUEST, address) {
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
            done => done,
        }
    }

    fn change(&self, kind: u16, flags: u16, address: Ipv4Addr) -> io::Result<()> {
        let mut message = Vec::with_capacity(40);
        message.extend(40_u32.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        // Sequence number and sender: one message at a time, and the kernel knows the socket.
        message.extend([0; 8]);
        // Family (IPv4), prefix, flags, scope.
        message.extend([2, 32, 0, 0]);
        message.extend(self.index.to_ne_bytes());
        // The address itself, as peer (1) and as local (2) address.
        for attribute in [1_u16, 2] {
            message.extend(8_u16.to_ne_bytes());
            message.extend(attribute.to_ne_bytes());
            message.extend(address.octets());
        }
        send(&self.netlink, &message, SendFlags::empty())?;
        let mut answer = [0_u8; 256];
        let (length, _) = recv(&self.netlink, &mut answer[..], RecvFlags::empty())?;
        // A header of 16 bytes, then the negative error number, 0 for none.
        match answer.get(16..20).filter(|_| length >= 20) {
            Some(code) => match i32::from_ne_bytes(code.try_into().unwrap_or_default()) {
                0 => Ok(()),
                code => Err(io::Error::from_raw_os_error(-code)),
            },
            None => Err(io::Error::other("the kernel's answer is too short")),
        }
    }

    /// Announces the address to all neighbours (gratuitous ARP).
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn announce(&self, address: Ipv4Addr) -> io::Result<()> {
        let frame = gratuitous(self.hardware, address);
        #[expect(unsafe_code, reason = "neither nix nor rustix makes such an address without")]
        // SAFETY: the address is a zeroed plain structure, filled in below; all pointers are to live values
        // of the given lengths.
        let sent = unsafe {
            let mut to: libc::sockaddr_ll = std::mem::zeroed();
            to.sll_family = libc::AF_PACKET as u16;
            to.sll_ifindex = i32::try_from(self.index).unwrap_or(0);
            to.sll_halen = 6;
            to.sll_addr[..6].fill(0xff);
            libc::sendto(
                self.packets.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

/// An ARP request for the sender's own address: neighbours that know the address update its hardware address.
fn gratuitous(hardware: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(hardware);
    frame.extend([0x08, 0x06]);
    // Ethernet, IPv4, their lengths, request.
    frame.extend([0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(hardware);
    frame.extend(address.octets());
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}
