//! The parts that a cluster is counted in: each is reached, aborted and reported on its own.
//!
//! In records, also as the key of a map, a part is a text: `base`, `pool/{name}`, `leaving/{pool}/{incarnation}`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ClusterRecord;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Part {
    /// The cluster without its pools.
    Base,
    /// A pool, by its name.
    Pool(String),
    /// A deleted pool on its way out: a pool of the same name that was made since is another part.
    Leaving {
        /// Its name.
        pool: String,
        /// Which of the pools that have had this name.
        incarnation: String,
    },
}

impl Part {
    /// A pool.
    pub fn pool(name: impl Into<String>) -> Self {
        Self::Pool(name.into())
    }

    /// The name of the pool that it is, be it on its way out or not.
    pub fn pool_name(&self) -> Option<&str> {
        match self {
            Self::Base => None,
            Self::Pool(pool) | Self::Leaving { pool, .. } => Some(pool),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base => f.write_str("base"),
            Self::Pool(pool) => write!(f, "pool/{pool}"),
            Self::Leaving { pool, incarnation } => write!(f, "leaving/{pool}/{incarnation}"),
        }
    }
}

impl From<Part> for String {
    fn from(part: Part) -> Self {
        part.to_string()
    }
}

impl TryFrom<String> for Part {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let words: Vec<&str> = text.split('/').collect();
        match *words.as_slice() {
            ["base"] => Ok(Self::Base),
            ["pool", pool] if !pool.is_empty() => Ok(Self::pool(pool)),
            ["leaving", pool, incarnation] if !pool.is_empty() && !incarnation.is_empty() => {
                Ok(Self::Leaving {
                    pool: pool.to_owned(),
                    incarnation: incarnation.to_owned(),
                })
            }
            _ => Err(format!(
                "{text:?} is not one of base, pool/{{name}}, leaving/{{pool}}/{{incarnation}}"
            )),
        }
    }
}

impl ClusterRecord {
    /// The generation of the last change to a part. `None` for a pool that is not there.
    pub fn part_generation(&self, part: &Part) -> Option<u64> {
        match part {
            Part::Base => Some(self.requests.generation),
            Part::Pool(pool) => self.pool_generations.get(pool).copied(),
            Part::Leaving { .. } => {
                let mut leaving = self.requests.leaving.iter();
                let found = leaving.find(|leaving| leaving.part() == *part);
                found.map(|leaving| leaving.generation)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_part_is_a_text_and_comes_back() {
        let leaving = Part::Leaving {
            pool: "np1".to_owned(),
            incarnation: "1a2b".to_owned(),
        };
        // A pool may be called as anything else is.
        let parts = [Part::Base, Part::pool("base"), Part::pool("np1"), leaving];
        let all: BTreeMap<Part, u64> = parts.into_iter().zip(1..).collect();
        let json = serde_json::to_string(&all).unwrap();
        assert_eq!(
            json,
            r#"{"base":1,"pool/base":2,"pool/np1":3,"leaving/np1/1a2b":4}"#
        );
        assert_eq!(serde_json::from_str::<BTreeMap<Part, u64>>(&json).unwrap(), all);
    }

    #[test]
    fn what_is_no_part_is_refused() {
        for wrong in [
            "",
            "np1",
            "-1a2b",
            "base/",
            "pool/",
            "pool/a/b",
            "leaving/a",
            "leaving//x",
        ] {
            assert!(Part::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
