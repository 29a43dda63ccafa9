//! Chance of the fuzzer: draws from a seed, one after the other.

use base_env::Seed;

/// See the module.
pub(super) struct Dice {
    seed: Seed,
    next: u64,
}

impl Dice {
    pub(super) fn new(seed: Seed) -> Self {
        Self { seed, next: 0 }
    }

    fn draw(&mut self) -> u64 {
        self.next += 1;
        self.seed.draw(self.next)
    }

    /// A number below `sides`; 0 where there are none.
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        let sides = u64::try_from(sides.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.draw() % sides).unwrap_or_default()
    }

    /// True with the probability of one in `times`.
    pub(super) fn once_in(&mut self, times: usize) -> bool {
        self.roll(times) == 0
    }

    /// One of these. There is at least one.
    pub(super) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.roll(from.len())]
    }

    /// One of these, if there is one.
    pub(super) fn one_of<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.roll(from.len()))
    }

    /// A text that clients should not send.
    pub(super) fn text(&mut self) -> String {
        const WORDS: &[&str] = &[
            "",
            " ",
            "a",
            "A",
            "0",
            "-1",
            "null",
            "true",
            "none",
            "*",
            "%",
            "%00",
            "%2F",
            "..",
            ".",
            "/",
            "//",
            "\\",
            "'",
            "\"",
            "''",
            "{}",
            "[]",
            "<x>",
            "default",
            "local",
            "LOCAL",
            "Standard",
            "free",
            "1.36.3",
            "1.36",
            "v1.37.1",
            "99999999999999999999",
            "2026-11-29T01:02:03Z",
            "0.0.0.0/0",
            "10.0.0.0/33",
            "10.244.0.0/16",
            "10.0.0.10",
            "255.255.255.255",
            "::1",
            "a=b:NoSchedule",
            "a=b",
            "kubernetes.azure.com/mode",
            "100%",
            "0%",
            "101%",
            "33%",
            "é",
            "\u{130}",
            "\u{0}",
            "\u{7f}",
            "\u{202e}x",
            "ß",
            "\u{1f600}",
            "\r\nx: y",
            "${7*7}",
            "System",
            "User",
            "Stopped",
            "msi",
            "SystemAssigned",
            "Nothing",
            "\u{feff}",
            "/subscriptions/x",
            "/subscriptions//resourceGroups/",
            "00000000-0000-0000-0000-000000000000",
        ];
        match self.roll(12) {
            0 => "x".repeat(1 << self.roll(14)),
            1 => (0..self.roll(24))
                .map(|_| {
                    char::from_u32(u32::try_from(self.roll(0x0011_0000)).unwrap_or(0)).unwrap_or('\u{fffd}')
                })
                .collect(),
            2 => (0..self.roll(16))
                .map(|_| char::from(u8::try_from(32 + self.roll(95)).unwrap_or(b'x')))
                .collect(),
            _ => self.pick(WORDS).to_owned(),
        }
    }
}
