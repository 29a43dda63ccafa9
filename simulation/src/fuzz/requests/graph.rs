//! Requests of the directory: the supported part of Graph.

use serde_json::{Value, json};

use super::{Sent, Shaker};
use crate::fuzz::bodies;

/// The prefix of the types of Graph's responses.
pub(super) const KIND: &str = "graph/";

/// Where Graph is. It has no other version.
const AT: &str = "/graph/v1.0";

/// Collections whose objects can be listed, made, read, changed and removed.
const COLLECTIONS: &[&str] = &["users", "groups", "servicePrincipals", "applications"];

/// Parts of objects, with their methods. The caller's own sign-ins are not revoked: all later requests would
/// be refused.
const PARTS: &[(&str, &str, &str)] = &[
    ("users", "GET", "memberOf"),
    ("users", "POST", "changePassword"),
    ("users", "POST", "revokeSignInSessions"),
    ("users", "POST", "checkMemberGroups"),
    ("groups", "GET", "members"),
    ("groups", "GET", "transitiveMembers"),
    ("groups", "POST", "members/$ref"),
    ("groups", "DELETE", "members/{id}/$ref"),
    ("groups", "GET", "transitiveMemberOf"),
    ("servicePrincipals", "POST", "addPassword"),
    ("servicePrincipals", "POST", "removePassword"),
    ("servicePrincipals", "POST", "getMemberGroups"),
    ("servicePrincipals", "GET", "appRoleAssignments"),
    ("applications", "POST", "addPassword"),
    ("applications", "POST", "removePassword"),
    ("applications", "GET", "federatedIdentityCredentials"),
    ("applications", "POST", "federatedIdentityCredentials"),
    ("applications", "PATCH", "federatedIdentityCredentials/ci1"),
    ("applications", "DELETE", "federatedIdentityCredentials/ci1"),
    ("applications", "GET", "owners"),
];

impl Shaker {
    /// A request of Graph, now and then broken.
    pub(super) fn graph(&mut self, bearer: String) -> Sent {
        let mut sent = self.whole_graph(bearer);
        if self.dice.once_in(3) {
            self.shake(&mut sent);
        }
        sent
    }

    /// A request with an existing path; the objects that it names may not exist.
    fn whole_graph(&mut self, bearer: String) -> Sent {
        let collection = self.dice.pick(COLLECTIONS);
        let (method, path, body) = match self.dice.roll(8) {
            0 => ("GET", collection.to_owned(), None),
            1 | 2 => ("POST", collection.to_owned(), Some(self.made(collection))),
            3 => ("GET", format!("{collection}/{}", self.id(collection)), None),
            4 => {
                let body = self.made(collection);
                (
                    "PATCH",
                    format!("{collection}/{}", self.id(collection)),
                    Some(body),
                )
            }
            5 => match self.dice.roll(6) {
                0 => ("GET", "me".to_owned(), None),
                1 => ("GET", "domains".to_owned(), None),
                2 => ("GET", format!("directoryObjects/{}", self.id(collection)), None),
                3 => {
                    let body = json!({ "ids": [self.id(collection)], "types": ["user", "group"] });
                    ("POST", "directoryObjects/getByIds".to_owned(), Some(body))
                }
                _ => ("DELETE", format!("{collection}/{}", self.id(collection)), None),
            },
            _ => self.part(),
        };
        let query = if method == "GET" {
            self.graph_query()
        } else {
            String::new()
        };
        let mut headers = vec![
            ("host".to_owned(), b"arm.sim.test".to_vec()),
            ("authorization".to_owned(), bearer.into_bytes()),
        ];
        let body = body.map_or_else(Vec::new, |body| self.broken(body));
        if !body.is_empty() {
            headers.push(("content-type".to_owned(), b"application/json".to_vec()));
        }
        let listed = path.split('/').next().unwrap_or_default().to_owned();
        Sent {
            method: method.to_owned(),
            target: format!("{AT}/{path}?{query}"),
            headers,
            body,
            operation: None,
            // The response of a part is of another type, and not kept.
            kind: if path.split('/').count() <= 2 && COLLECTIONS.contains(&listed.as_str()) {
                format!("{KIND}{listed}")
            } else {
                String::new()
            },
        }
    }

    fn part(&mut self) -> (&'static str, String, Option<Value>) {
        let (collection, method, part) = *self.dice.one_of(PARTS).unwrap_or(&PARTS[0]);
        let (own, other) = (self.id(collection), self.any_id());
        let path = format!("{collection}/{own}/{}", part.replace("{id}", &other));
        let name = part.split('/').next().unwrap_or_default();
        let body = match (method, name) {
            ("GET" | "DELETE", _) => None,
            (_, "members") => {
                Some(json!({ "@odata.id": format!("https://any{AT}/directoryObjects/{other}") }))
            }
            (_, "changePassword") => Some(json!({
                "currentPassword": "Correct horse 1", "newPassword": "Correct horse 2",
            })),
            (_, "addPassword") => Some(json!({ "passwordCredential": { "displayName": "a" } })),
            (_, "removePassword") => Some(json!({ "keyId": other })),
            (_, "checkMemberGroups") => Some(json!({ "groupIds": [other] })),
            (_, "getMemberGroups") => Some(json!({ "securityEnabledOnly": false })),
            (_, "federatedIdentityCredentials") => Some(json!({
                "name": "ci1", "issuer": "https://ci.example.com", "subject": self.dice.pick(&["a", "b"]),
                "audiences": ["api://AzureADTokenExchange"],
            })),
            _ => None,
        };
        (method, path, body)
    }

    /// A body of one of a collection that works.
    fn made(&mut self, collection: &str) -> Value {
        let name = self.dice.pick(&["ada", "ben", "cay"]);
        match collection {
            "users" => json!({
                "accountEnabled": true, "displayName": name, "mailNickname": name,
                "userPrincipalName": format!("{name}@sim.test"), "passwordProfile": { "password": "Correct horse 1" },
            }),
            "groups" => json!({
                "displayName": name, "mailNickname": name, "mailEnabled": false, "securityEnabled": true,
            }),
            "servicePrincipals" => {
                let seen = self.seen.get(&format!("{KIND}applications"));
                let found = seen.and_then(|seen| self.dice.one_of(seen));
                json!({ "appId": found.map_or(Value::Null, |found| found["appId"].clone()) })
            }
            _ => json!({ "displayName": name }),
        }
    }

    fn broken(&mut self, mut body: Value) -> Vec<u8> {
        if self.dice.once_in(2) {
            return body.to_string().into_bytes();
        }
        for _ in 0..=self.dice.roll(3) {
            bodies::shake(&mut body, &mut self.dice);
        }
        bodies::bytes(&body, &mut self.dice)
    }

    /// The id of an object of a collection, or a similar text.
    fn id(&mut self, collection: &str) -> String {
        const IDS: &[&str] = &["0a0a0a0a-0000-4000-8000-000000000001", "ada@sim.test", "none"];
        let known = self.names.get(&collection.to_ascii_lowercase());
        let known = known.and_then(|known| self.dice.one_of(known)).cloned();
        match (self.dice.roll(8), known) {
            (1.., Some(id)) => arm_ids::encode(&id),
            _ => arm_ids::encode(self.dice.pick(IDS)),
        }
    }

    fn any_id(&mut self) -> String {
        let collection = self.dice.pick(COLLECTIONS);
        self.id(collection)
    }

    fn graph_query(&mut self) -> String {
        const QUERIES: &[&str] = &[
            "$top=1",
            "$top=0",
            "$filter=displayName eq 'ada'",
            "$filter=startswith(displayName,'a')",
            "$filter=servicePrincipalNames/any(x:x eq 'a')",
            "$filter=displayName eq",
            "$select=id,displayName",
            "$expand=owners",
            "$count=true",
            "$skiptoken=YQ",
            "$orderby=displayName",
            "$search=\"a\"",
        ];
        if self.dice.once_in(2) {
            return String::new();
        }
        let (name, value) = self.dice.pick(QUERIES).split_once('=').unwrap_or_default();
        let value = if self.dice.once_in(4) {
            self.dice.text()
        } else {
            value.to_owned()
        };
        format!("{name}={}", arm_ids::encode(&value))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use anyhow::Context as _;
    use axum::body::to_bytes;
    use base_env::Seed;
    use fabric_sim::SimOptions;

    use super::*;
    use crate::{config, fuzz::Dice, login, run, stamp::Stamp};

    #[test]
    fn what_is_asked_of_the_directory_reaches_it() {
        let statuses = run(async || {
            let mut stamp = Stamp::new(1, SimOptions::default()).await?;
            stamp.start_with(false)?;
            let mut shaker = Shaker::new(Dice::new(Seed::new(1).child("graph")), stamp.routes());
            let mut statuses: BTreeMap<u16, u64> = BTreeMap::new();
            for _ in 0..300 {
                let sent = shaker.whole_graph(login::bearer_for(stamp.env.clock.now(), config::GRAPH)?);
                let request = sent.request().context("HTTP can carry it")?;
                let answer = stamp.send(request).await?.context("a service runs")?;
                let status = answer.status().as_u16();
                let body: Value = serde_json::from_slice(&to_bytes(answer.into_body(), usize::MAX).await?)
                    .unwrap_or_default();
                *statuses.entry(status).or_default() += 1;
                // A request that names a missing object gets a 404 as well, with another message.
                let message = body["error"]["message"].as_str().unwrap_or_default();
                assert!(
                    status != 401 && !message.contains("not found for the segment"),
                    "{sent}\n{status} {body}"
                );
                shaker.learn(&sent, status, &body);
            }
            stamp.kill().await?;
            Ok(statuses)
        })
        .unwrap();
        for status in [200, 201, 204, 400, 404, 409] {
            assert!(statuses.contains_key(&status), "no {status} in {statuses:?}");
        }
    }
}
