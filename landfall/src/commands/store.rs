//! `landfall store`: copies of the store, and restoring one.
//!
//! Always true: the store's file is touched only while this process holds the stamp's lock, so no service has
//! it open.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use base_sealer::Sealer;
use control_backup::{Copies, CopyName, Kept, Snapshot};
use jiff::Timestamp;
use serde_json::json;
use service::store_copies::{CopyStatus, StoreStatus};
use storage_redb::RedbStore;

use super::Context;
use crate::{
    admin::AdminClient,
    args, background,
    printer::{self, duration, size},
    problem::Problem,
    serve::backups,
    stamp::Settings,
};

pub(crate) async fn run(context: &Context, command: &args::Store) -> Result<()> {
    context.require_root("look after the store")?;
    let settings = Settings::required(&context.places)?;
    let stand = Stand::open(context, settings)?;
    match command {
        args::Store::Show => stand.show().await,
        args::Store::Backup => stand.backup().await,
        args::Store::Restore(args) => stand.restore(args).await,
        args::Store::New => stand.new_store().await,
    }
}

/// The stamp of a command.
struct Stand<'a> {
    context: &'a Context,
    settings: Settings,
    sealer: Arc<Sealer>,
    copies: Copies,
}

/// A store and one of its copies.
type Choice = (Copies, Kept);

impl<'a> Stand<'a> {
    fn open(context: &'a Context, settings: Settings) -> Result<Self> {
        let path = context.places.sealing_key();
        if !path.exists() {
            return Err(Problem::new(
                format!("the sealing key is gone: there is no {}", path.display()),
                "put the directory back from where you keep a copy of it; without this key no copy of the store can be read",
            )
            .into());
        }
        let sealer = Arc::new(Sealer::open(&path).context("cannot open the sealing key")?);
        let kept = backups::open(&context.places, &settings, &sealer, &context.env)?;
        Ok(Self {
            context,
            settings,
            sealer,
            copies: Copies::new(kept.archive),
        })
    }

    /// Takes the stamp's lock, or fails with the command that stops the service.
    async fn hold(&self) -> Result<background::Held> {
        let (places, flag) = (&self.context.places, self.context.name_flag());
        if let Some(pid) = background::living(places, &self.context.env).await? {
            return Err(Problem::new(
                format!(
                    "the service of stamp {} runs (process {pid}) and has its store open",
                    places.name
                ),
                format!("end it first: landfall down{flag}"),
            )
            .into());
        }
        places.make()?;
        background::hold(places)
    }

    /// All copies, oldest first, of all stores.
    async fn all(&self) -> Result<Vec<Kept>> {
        let copies = self.copies.clone();
        blocking(move || {
            let mut all = Vec::new();
            for store in copies.stores()? {
                all.extend(copies.of(&store)?);
            }
            all.sort_unstable_by_key(|kept| kept.name);
            Ok(all)
        })
        .await
    }

    /// The store's status from the service, if it runs.
    async fn status(&self) -> Result<Option<StoreStatus>> {
        if background::pid(&self.context.places)?.is_none() {
            return Ok(None);
        }
        Ok(AdminClient::new(&self.context.places)?.status().await?.store)
    }

    async fn show(&self) -> Result<()> {
        let places = &self.context.places;
        let (all, status) = (self.all().await?, self.status().await?);
        let listed: Vec<CopyStatus> = all.iter().map(CopyStatus::from).collect();
        let (file, wheres) = (places.store(), backups::told(places, &self.settings));
        let key = places.sealing_key();
        let now = self.context.env.clock.now();
        let page = Page {
            file: &file,
            there: file.exists(),
            wheres: &wheres,
            key: &key,
            status: status.as_ref(),
            copies: &listed,
            flag: &self.context.name_flag(),
        };
        self.context.printer.result(
            &json!({
                "event": "result", "file": &file, "fileExists": page.there, "sealingKey": &key, "kept": &wheres,
                "store": &status, "copies": &listed,
            }),
            || page.text(now),
        );
        Ok(())
    }

    async fn backup(&self) -> Result<()> {
        let step = self.context.printer.step("copy", "Copying the store");
        let running = background::living(&self.context.places, &self.context.env).await?;
        let copy = if running.is_some() {
            AdminClient::new(&self.context.places)?.copy_store().await?
        } else {
            let _held = self.hold().await?;
            if !self.context.places.store().exists() {
                return Err(self.gone());
            }
            let store = RedbStore::open(&self.context.places.store(), &self.context.env)?;
            control_records::migrate(&store).await?;
            control_records::epoch::identify(&store, || self.context.env.ids.short()).await?;
            let snapshot = Snapshot::of(&store, &self.context.env).await?;
            let copies = self.copies.clone();
            CopyStatus::from(&blocking(move || copies.take(&snapshot)).await?)
        };
        step.done(format!("revision {}, {}", copy.revision, size(copy.bytes)));
        self.context
            .printer
            .result(&json!({ "event": "result", "copy": &copy }), || {
                format!("The store is copied as of {}, and was read back.", copy.at)
            });
        Ok(())
    }

    fn gone(&self) -> anyhow::Error {
        Problem::new(
            format!("there is no {}", self.context.places.store().display()),
            format!("put it back: landfall store restore{}", self.context.name_flag()),
        )
        .into()
    }

    /// The identity of the present store file, if it can be read.
    async fn present(&self) -> Option<String> {
        let path = self.context.places.store();
        if !path.exists() {
            return None;
        }
        let store = RedbStore::open(&path, &self.context.env).ok()?;
        let found =
            control_store::get_record::<control_records::StoreRecord>(&store, control_records::key::STORE);
        Some(found.await.ok().flatten()?.value.id)
    }

    async fn choose(&self, args: &args::StoreRestore) -> Result<Choice> {
        if let Some(file) = &args.file {
            let archive = backups::archive_around(file, &self.sealer)?;
            return Ok((Copies::new(archive), named(file)?));
        }
        let at = args.at.as_deref().map(moment).transpose()?;
        let all = self.all().await?;
        let wanted = match &args.store {
            Some(id) => Some(id.clone()),
            None => self.present().await,
        };
        let kept = choose(&all, wanted.as_deref(), at).map_err(|why| {
            Problem::usage(
                why,
                format!(
                    "see what there is: landfall store show{}",
                    self.context.name_flag()
                ),
            )
        })?;
        Ok((self.copies.clone(), kept.clone()))
    }

    async fn restore(&self, args: &args::StoreRestore) -> Result<()> {
        let (printer, flag) = (&self.context.printer, self.context.name_flag());
        let _held = self.hold().await?;
        let (copies, kept) = self.choose(args).await?;
        let name = kept.name;
        if !args.yes {
            let what = format!(
                "The store is restored to {}: later requests are lost. The present store is kept beside it.",
                name.time()
            );
            if !printer.confirm(&what).await? {
                return Err(Problem::usage("nothing was done", "type yes, or give --yes").into());
            }
        }
        let step = printer.step("restore", "Putting the store back");
        let path = self.context.places.store();
        let (env, own) = (self.context.env.clone(), self.copies.clone());
        let runtime = tokio::runtime::Handle::current();
        let store = kept.store.clone();
        let restored = tokio::task::spawn_blocking(move || -> Result<_> {
            let (header, records) = copies.open(&store, &name)?;
            let done = control_backup::restore(&path, &own, header, records, &env);
            Ok(runtime.block_on(done)?)
        })
        .await
        .context("putting the store back failed")?
        .context("the store was not restored; the previous one is still in place")?;
        step.done(format!(
            "{} records as of {}",
            restored.header.records,
            name.time()
        ));
        printer.result(
            &json!({
                "event": "result", "store": kept.store, "at": name.time(), "revision": name.revision,
                "epoch": restored.epoch, "records": restored.header.records, "keptFile": &restored.kept_file,
            }),
            || {
                let mut page = String::new();
                if let Some(kept) = &restored.kept_file {
                    page.push_str(&format!("The store that was there is now {}.\n", kept.display()));
                }
                page.push_str(&format!(
                    "Start the service: landfall up{flag}\nThen list what it has no record of: landfall unknown list{flag}"
                ));
                page
            },
        );
        Ok(())
    }

    async fn new_store(&self) -> Result<()> {
        let _held = self.hold().await?;
        let path = self.context.places.store();
        if path.exists() {
            return Err(Problem::usage(
                format!("there is a store: {}", path.display()),
                "move it away first; a new store has no clusters",
            )
            .into());
        }
        drop(RedbStore::open(&path, &self.context.env)?);
        let flag = self.context.name_flag();
        self.context
            .printer
            .result(&json!({ "event": "result", "file": &path }), || {
                format!("The store is new and empty. What there is stays, and is unknown to it: landfall up{flag}, landfall unknown list{flag}")
            });
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, control_backup::CopyError> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.context("looking after the copies failed")??)
}

fn moment(text: &str) -> Result<Timestamp> {
    text.parse().map_err(|_| {
        Problem::usage(
            format!("{text} is not a time"),
            "write it like 2026-11-21T12:41:07Z",
        )
        .into()
    })
}

/// The copy in a file, by its path.
fn named(file: &Path) -> Result<Kept> {
    let text = |path: Option<&Path>| {
        let name = path.and_then(Path::file_name).and_then(|name| name.to_str());
        name.unwrap_or_default().to_owned()
    };
    let (folder, name) = (text(file.parent()), text(Some(file)));
    let store = folder.strip_prefix(cluster_archive::STORES);
    match (store, name.parse::<CopyName>()) {
        (Some(store), Ok(name)) => Ok(Kept {
            store: store.to_owned(),
            name,
            bytes: 0,
        }),
        _ => Err(Problem::usage(
            format!("{} is not a copy of a store as it was kept", file.display()),
            "give it as DIRECTORY/store-ID/NAME.copy, with the folder's file 'key' beside it",
        )
        .into()),
    }
}

/// The newest copy of this store that is not younger than `at`.
fn choose<'a>(all: &'a [Kept], store: Option<&str>, at: Option<Timestamp>) -> Result<&'a Kept, String> {
    let mut stores: Vec<&str> = all.iter().map(|kept| kept.store.as_str()).collect();
    stores.sort_unstable();
    stores.dedup();
    let store = match (store, stores.as_slice()) {
        (Some(store), _) => store,
        (None, []) => return Err("there is no copy of the store".to_owned()),
        (None, [one]) => one,
        (None, many) => {
            return Err(format!(
                "there are copies of several stores, and no file says which is meant: give --store, one of {}",
                many.join(", ")
            ));
        }
    };
    let fits = |kept: &&Kept| kept.store == store && at.is_none_or(|at| kept.name.time() <= at);
    all.iter().rfind(fits).ok_or_else(|| match at {
        Some(at) => format!("there is no copy of the store {store} from {at} or before"),
        None => format!("there is no copy of the store {store}"),
    })
}

/// The output of `show`.
struct Page<'a> {
    file: &'a Path,
    there: bool,
    wheres: &'a [String],
    key: &'a Path,
    status: Option<&'a StoreStatus>,
    copies: &'a [CopyStatus],
    flag: &'a str,
}

impl Page<'_> {
    fn text(&self, now: Timestamp) -> String {
        let ago = |at: Timestamp| duration(now.duration_since(at).as_secs_f64().max(0.0));
        let gone = if self.there { "" } else { " (there is none)" };
        let mut page = format!("Store\n  file         {}{gone}\n", self.file.display());
        if let Some(status) = self.status {
            page.push_str(&format!(
                "  identity     {}, put back {} times, revision {}\n",
                status.id, status.epoch, status.revision
            ));
            if let Some(complaint) = status.complaint(now) {
                page.push_str(&format!("  problem      {complaint}\n"));
            }
        }
        for (number, place) in self.wheres.iter().enumerate() {
            let label = if number == 0 { "copies" } else { "and again" };
            page.push_str(&format!("  {label:<12} {place}\n"));
        }
        page.push_str(&format!(
            "  sealing key  {}: without this file no copy can be read; keep a copy of its directory elsewhere\n\n",
            self.key.display()
        ));
        if self.copies.is_empty() {
            page.push_str(&format!(
                "There is no copy yet. Make one: landfall store backup{}\n",
                self.flag
            ));
            return page;
        }
        let rows = self
            .copies
            .iter()
            .rev()
            .map(|copy| {
                vec![
                    copy.at.to_string(),
                    format!("{} ago", ago(copy.at)),
                    copy.store.clone(),
                    copy.epoch.to_string(),
                    copy.revision.to_string(),
                    size(copy.bytes),
                ]
            })
            .collect();
        page.push_str(&printer::table(
            &["COPY OF", "AGE", "STORE", "EPOCH", "REVISION", "SIZE"],
            rows,
        ));
        page.push_str(&format!(
            "\n\nGo back to one, with the service ended: landfall store restore --at TIME{}\n",
            self.flag
        ));
        page
    }
}

#[cfg(test)]
mod tests {
    use control_records::Epoch;
    use control_store::Revision;

    use super::*;

    fn kept(store: &str, second: i64) -> Kept {
        Kept {
            store: store.to_owned(),
            name: CopyName {
                at: second * 1000,
                epoch: Epoch(0),
                revision: Revision(7),
            },
            bytes: 100,
        }
    }

    #[test]
    fn the_newest_copy_of_the_store_that_is_meant_is_chosen() {
        let all = [kept("a", 10), kept("b", 20), kept("a", 30)];
        let second = |found: Result<&Kept, String>| found.map(|kept| kept.name.at / 1000);
        let at = |second| Timestamp::from_second(second).ok();
        assert_eq!(second(choose(&all, Some("a"), None)), Ok(30));
        assert_eq!(second(choose(&all, Some("a"), at(29))), Ok(10));
        assert_eq!(
            second(choose(&all[1..2], None, None)),
            Ok(20),
            "there is one store only"
        );
        assert!(
            choose(&all, None, None)
                .unwrap_err()
                .contains("--store, one of a, b")
        );
        assert!(choose(&all, Some("b"), at(19)).unwrap_err().contains("or before"));
        assert!(choose(&all, Some("c"), None).is_err());
        assert!(choose(&[], None, None).is_err());
    }

    #[test]
    fn a_file_is_named_by_its_folder_and_name() {
        let name = kept("abc", 10).name;
        let good = format!("/mnt/backups/store-abc/{name}");
        let found = named(Path::new(&good)).unwrap();
        assert_eq!((found.store.as_str(), found.name), ("abc", name));
        for wrong in [
            "/mnt/x.copy",
            "/mnt/store-abc/key",
            "/mnt/abc/000000000010000-0-7.copy",
        ] {
            assert!(named(Path::new(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_page_says_where_copies_and_the_key_are_and_no_secret() {
        let copies = [CopyStatus::from(&kept("a", 10))];
        let wheres = ["/var/b".to_owned(), "s3://bucket".to_owned()];
        let page = Page {
            file: Path::new("/s/store.redb"),
            there: false,
            wheres: &wheres,
            key: Path::new("/s/secrets/sealing.key"),
            status: None,
            copies: &copies,
            flag: " --name t",
        };
        let text = anstream::adapter::strip_str(&page.text(Timestamp::from_second(70).unwrap())).to_string();
        for part in [
            "/s/store.redb (there is none)",
            "copies       /var/b",
            "and again    s3://bucket",
            "/s/secrets/sealing.key: without",
            "1970-01-01T00:00:10Z",
            "1 min",
            "--at TIME --name t",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
