//! Whether the repository is there, and is the one that was there before: opened, made when it is new, left without locks.

use super::memo::Memo;
use super::restic::{OPEN, Restic, lines, text};
use crate::error::{Failure, Result};
use crate::link::raw::Channel;
use serde_json::Value;
use std::path::Path;

/// Where there was a repository there is none, or another one: its disk may not be there, and a new one in its place
/// would hold none of its sets. `note`: what remembers it.
pub(super) fn gone(what: String, note: &Path) -> Failure {
    Failure::refused(
        what,
        format!(
            "is its disk mounted, and the right one? Mount it and run the command again. To use another or a new one there on \
             purpose, remove the note {} on this host first",
            note.display()
        ),
    )
}

/// Refuses a repository that is not the one that was opened here before.
fn same(memo: &Memo, id: &str, place: &str) -> Result<()> {
    match memo.known() {
        Some(known) if known != id => Err(gone(
            format!("the repository at {place} is {id}, and the one that was there before was {known}"),
            memo.path(),
        )),
        _ => Ok(()),
    }
}

/// A set is whole, so all who stored something of it have ended well, and left no lock. A run before may have: unless it
/// is known that there was none when this one began, such locks are taken away now.
pub(super) fn settle(channel: &dyn Channel, restic: &Restic) -> Result<()> {
    if restic.memo.known().is_none() || restic.memo.settled().is_some() {
        return Ok(());
    }
    // The set is there whatever comes of this: the next run looks again.
    let gone = || restic.outlast(channel) && restic.check(channel, &["unlock"], OPEN).is_ok();
    if restic.memo.is_ours() || gone() {
        restic.memo.settle()?;
    }
    Ok(())
}

/// Makes the repository unless it is there and opens. restic's own file `config` is the only thing that tells; where
/// another repository was opened before, none is made. A run that was killed may have left its lock, which keeps every
/// tool from checking the repository: once that run is over, it is taken away meanwhile, for opening a repository costs
/// either of them half a second of one processor. None of that is done when the last run has ended well; should the
/// repository be gone since, that is said as soon as something is stored.
pub(super) fn init(channel: &dyn Channel, restic: &Restic) -> Result<Vec<Value>> {
    if let Some(id) = restic.memo.settled() {
        restic.memo.busy()?;
        return Ok(vec![serde_json::json!({"message_type": "opened", "id": id})]);
    }
    let alone = restic.outlast(channel);
    let said = open(channel, restic)?;
    if let Some(id) = said.iter().find_map(|value| value["id"].as_str().filter(|id| !id.is_empty())) {
        same(&restic.memo, id, restic.place())?;
        restic.memo.opened(id, alone)?;
    }
    Ok(said)
}

fn open(channel: &dyn Channel, restic: &Restic) -> Result<Vec<Value>> {
    let mut unlocking = restic.start(&["unlock".to_owned()])?;
    let (status, said) = restic.run(channel, &["cat", "config", "--no-lock"], OPEN)?;
    let (unlocked, words) = unlocking.wait(OPEN, || !channel.is_gone())?;
    match status.code() {
        Some(0) if unlocked.success() => {
            let id =
                config_id(&said).ok_or_else(|| Failure::Invalid("restic shows no configuration".into()))?;
            Ok(vec![serde_json::json!({"message_type": "opened", "id": id})])
        }
        Some(0) => Err(restic.failure("unlock", unlocked, &lines(&words))),
        Some(10) if restic.memo.known().is_none() => restic.check(channel, &["init"], OPEN),
        _ => Err(restic.failure("cat", status, &said)),
    }
}

/// The repository's identifier in its configuration, which restic shows on several lines.
fn config_id(said: &[Value]) -> Option<String> {
    let shown: String = said.iter().filter_map(text).collect();
    // Warnings may stand behind it.
    let config =
        serde_json::Deserializer::from_str(&shown).into_iter::<Value>().next().and_then(|read| read.ok());
    said.iter().chain(&config).find_map(|value| value["id"].as_str().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::{config_id, init, same, settle};
    use crate::backup::memo::tests::memo;
    use crate::backup::program::Program;
    use crate::backup::restic::{Restic, lines};
    use crate::error::Result;
    use crate::link::Link;
    use serde_json::Value;
    use std::fs;
    use std::path::Path;

    /// A restic that opens a repository `ID` when there is a file `config` with that, else says that there is none, and
    /// notes what it was asked.
    const STAND_IN: &str = r#"
        folder=$1; shift 3; echo "$1" >>"$folder/asked"
        case $1 in
            unlock) exit 0 ;;
            init) echo new >"$folder/config"; echo '{"message_type":"initialized","id":"new"}' ;;
            *) [ -e "$folder/config" ] || exit 10; printf '{"id":"%s"}\n' "$(cat "$folder/config")" ;;
        esac"#;

    fn restic(folder: &Path, agent: &str) -> Restic {
        let place = folder.join("place").display().to_string();
        let program = Program {
            path: "/bin/sh".into(),
            before: ["-c", STAND_IN, "restic", &folder.display().to_string()].map(str::to_owned).to_vec(),
            shown: String::new(),
        };
        Restic::stand_in(program, &place, memo(folder, &place, "key", agent), &folder.join("run"))
    }

    fn opened(restic: &Restic) -> Result<Vec<Value>> {
        init(&Link::new(&b""[..], Vec::new()), restic)
    }

    fn asked(folder: &Path) -> Vec<String> {
        let asked = folder.join("asked");
        let text = fs::read_to_string(&asked).unwrap_or_default();
        let _ = fs::remove_file(asked);
        let mut all: Vec<String> = text.lines().map(str::to_owned).collect();
        all.sort();
        all
    }

    #[test]
    fn a_repository_that_is_gone_is_not_made_anew_without_a_word() {
        let folder = tempfile::tempdir().unwrap();
        let (folder, config) = (folder.path(), folder.path().join("config"));
        let said = opened(&restic(folder, "one")).unwrap();
        assert_eq!(said[0]["id"], "new", "there was none before");
        assert!(asked(folder).contains(&"init".to_owned()));
        // Its disk is not mounted.
        fs::remove_file(&config).unwrap();
        let two = restic(folder, "two");
        for _ in 0..2 {
            let gone = opened(&two).unwrap_err();
            assert!(gone.to_string().contains("is gone"), "{gone}");
            assert!(
                gone.hint().contains("mounted")
                    && gone.hint().contains(&two.memo.path().display().to_string())
            );
        }
        assert!(!config.exists() && !asked(folder).contains(&"init".to_owned()));
        // It is there again.
        fs::write(&config, "new").unwrap();
        assert_eq!(opened(&two).unwrap()[0]["id"], "new");
        // Another one is.
        fs::write(&config, "other").unwrap();
        drop(two);
        let other = opened(&restic(folder, "three")).unwrap_err();
        assert!(other.to_string().contains("other") && other.to_string().contains("new"), "{other}");
        let two = restic(folder, "two");
        assert_eq!(two.memo.known().as_deref(), Some("new"));
        assert!(same(&two.memo, "new", "/place").is_ok());
        // On purpose.
        fs::remove_file(two.memo.path()).unwrap();
        assert_eq!(opened(&two).unwrap()[0]["id"], "other");
    }

    #[test]
    fn locks_are_looked_for_unless_it_is_known_that_there_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let channel = Link::new(&b""[..], Vec::new());
        // Of a repository that was never opened here nothing is noted.
        settle(&channel, &restic(folder, "none")).unwrap();
        assert_eq!(asked(folder), Vec::<String>::new());
        let one = restic(folder, "one");
        opened(&one).unwrap();
        asked(folder);
        settle(&channel, &one).unwrap();
        assert_eq!((one.memo.settled().is_some(), asked(folder)), (true, Vec::new()), "it opened it itself");
        // It is killed while it stores; a safety set comes, which does not open it.
        opened(&one).unwrap();
        drop(one);
        let safety = restic(folder, "safety");
        safety.memo.busy().unwrap();
        settle(&channel, &safety).unwrap();
        assert_eq!((safety.memo.settled().is_some(), asked(folder)), (true, vec!["unlock".to_owned()]));
    }

    #[test]
    fn the_configuration_names_the_repository_on_one_line_or_many() {
        let many = lines("{\n  \"version\": 2,\n  \"id\": \"12ab\",\n  \"chunker_polynomial\": \"3\"\n}\n");
        assert_eq!(config_id(&many).as_deref(), Some("12ab"));
        let warned = [many, lines("unable to open cache\n")].concat();
        assert_eq!(config_id(&warned).as_deref(), Some("12ab"));
        assert_eq!(config_id(&lines("{\"version\":2,\"id\":\"12ab\"}\n")).as_deref(), Some("12ab"));
        assert_eq!(config_id(&lines("nothing\n")), None);
    }
}
