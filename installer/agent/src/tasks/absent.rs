//! What must not be there any more (uninstall). Only what is ours can be removed: files and trees below our folders,
//! drop-ins and units that carry our name, system users.

use super::{Context, Outcome, sysctl};
use crate::deadline::Deadline;
use crate::error::{Failure, Result};
use crate::files::{absolute, parent, sync_folder};
use crate::made::Made;
use crate::process::Invocation;
use crate::services::keeper;
use crate::supervisor::{client, control};
use maxim_model::task::{AbsentTask, AbsentUser, Change, ServiceManager};
use nix::unistd::{Group, User};
use std::fs;
use std::path::{Path, PathBuf};

/// Folders of the system in which files of ours lie, known by their name.
const SHARED: &[&str] = &[
    "/etc/sysctl.d",
    "/etc/security/limits.d",
    "/etc/systemd/system",
    "/etc/tmpfiles.d",
    "/etc/sysusers.d",
    "/etc/modules-load.d",
    "/etc/profile.d",
    "/run",
];

fn ours(context: &Context<'_>, path: &Path) -> Result<()> {
    let named = path.file_name().is_some_and(|name| name.to_string_lossy().contains("maxim"));
    let shared = named && SHARED.iter().any(|folder| parent(path) == Path::new(folder));
    if shared || context.scope.owns(path) {
        return Ok(());
    }
    Err(Failure::refused(
        format!("{} is not ours to remove", path.display()),
        "only what the installer made is removed; remove it by hand if it must go",
    ))
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn is_empty(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// What would change.
pub fn check(context: &Context<'_>, task: &AbsentTask) -> Result<Change> {
    let remove = |what: String| Change::Remove { summary: format!("remove {what}") };
    Ok(match task {
        AbsentTask::File(path) | AbsentTask::Tree(path) => {
            let path = absolute(path)?;
            ours(context, &path)?;
            if exists(&path) { remove(path.display().to_string()) } else { Change::None }
        }
        AbsentTask::EmptyDirectory(path) => {
            let path = absolute(path)?;
            ours(context, &path)?;
            match (path.is_dir(), is_empty(&path)) {
                (false, _) => Change::None,
                (true, true) => remove(format!("the empty folder {}", path.display())),
                (true, false) => {
                    Change::Later { summary: format!("remove {} if it is empty then", path.display()) }
                }
            }
        }
        AbsentTask::User(user) => match ours_of(user)? {
            (false, false) if owed_group(&Made::at(&user.made)?, &user.name)?.is_some() => {
                Change::Create { summary: format!("make the group {} again", user.name), diff: String::new() }
            }
            (false, false) => Change::None,
            (true, _) => remove(format!("the user {} and its group", user.name)),
            (false, true) => remove(format!("the group {}", user.name)),
        },
        AbsentTask::Line(line) => super::line::check_absent(line)?,
        AbsentTask::Unit(name) => {
            let keeper = keeper(&ServiceManager::Systemd);
            let state = keeper.states(std::slice::from_ref(name))?.pop().unwrap_or_default();
            if keeper.definition(name).exists() || state.is_up() {
                remove(format!("the unit {name}"))
            } else {
                Change::None
            }
        }
    })
}

/// Makes it so.
pub fn apply(context: &Context<'_>, task: &AbsentTask) -> Result<Outcome> {
    match task {
        AbsentTask::File(path) => {
            let path = absolute(path)?;
            ours(context, &path)?;
            if parent(&path) == Path::new("/etc/sysctl.d") {
                sysctl::restore(&path);
            }
            fs::remove_file(&path).map_err(Failure::file("remove", &path))?;
            sync_folder(parent(&path))?;
            Ok(Outcome::changed(format!("removed {}", path.display())))
        }
        AbsentTask::Tree(path) => {
            let path = absolute(path)?;
            ours(context, &path)?;
            stop_supervisor(&path, &context.deadline)?;
            remove_tree(&path)?;
            Ok(Outcome::changed(format!("removed {} with all in it", path.display())))
        }
        AbsentTask::EmptyDirectory(path) => {
            let path = absolute(path)?;
            ours(context, &path)?;
            if !path.is_dir() || !is_empty(&path) {
                return Ok(Outcome::unchanged(format!("{} is left: it is not empty", path.display())));
            }
            fs::remove_dir(&path).map_err(Failure::file("remove", &path))?;
            Ok(Outcome::changed(format!("removed {}", path.display())))
        }
        AbsentTask::User(user) => remove_user(context, user),
        AbsentTask::Line(line) => super::line::apply_absent(line),
        AbsentTask::Unit(name) => {
            let removed = keeper(&ServiceManager::Systemd).remove(name, &context.deadline)?;
            context.marks().paid(name.trim_end_matches(".service"))?;
            Ok(Outcome { changed: removed, detail: format!("removed the unit {name}") })
        }
    }
}

/// A root of the embedded profile is not pulled away under a living supervisor.
fn stop_supervisor(tree: &Path, deadline: &Deadline) -> Result<()> {
    // The root itself, or its run folder: without purge that goes while the data stays.
    for root in [tree, parent(tree)] {
        if control::socket(root).starts_with(tree) && control::socket(root).exists() {
            client::shutdown(root, deadline.left())?;
        }
    }
    Ok(())
}

/// Gives the tree another name first, so that a killed run never leaves half a tree under the name that counts.
fn remove_tree(path: &Path) -> Result<()> {
    let found = fs::symlink_metadata(path).map_err(Failure::file("look at", path))?;
    if !found.is_dir() {
        return fs::remove_file(path).map_err(Failure::file("remove", path));
    }
    let doomed: PathBuf = crate::files::temporary_beside(path);
    crate::files::sweep(path);
    match fs::rename(path, &doomed) {
        Ok(()) => fs::remove_dir_all(&doomed).map_err(Failure::file("remove", path))?,
        // A mount point cannot be renamed; its contents can be removed.
        Err(_) => fs::remove_dir_all(path).map_err(Failure::file("remove", path))?,
    }
    sync_folder(parent(path))
}

/// Whether user and group are there and were made by us.
fn ours_of(task: &AbsentUser) -> Result<(bool, bool)> {
    let made = Made::at(&task.made)?;
    let user = matches!(User::from_name(&task.name), Ok(Some(_))) && made.holds("user", &task.name)?;
    let group = matches!(Group::from_name(&task.name), Ok(Some(_))) && made.holds("group", &task.name)?;
    Ok((user, group))
}

/// A group that was there before us, and that `userdel` may take along with its user: noted with its number while that
/// is going on.
const KEPT: &str = "kept-group";

/// The number of a group that was there before us and went with the user, in a run that was killed.
fn owed_group(made: &Made, name: &str) -> Result<Option<String>> {
    let there = matches!(Group::from_name(name), Ok(Some(_)));
    Ok(made.value(KEPT, name)?.filter(|_| !there))
}

/// Makes that group again, with the number that it had. `place`: further arguments of `groupadd`, for another system than
/// this one.
pub(super) fn make_group_again(made: &Made, name: &str, place: &[&str], deadline: &Deadline) -> Result<()> {
    if let Some(number) = owed_group(made, name)? {
        let arguments = [place, &["--system", "--gid", &number, name]].concat();
        Invocation::new("groupadd", &arguments)?.check(deadline.left())?;
    }
    if let Some(number) = made.value(KEPT, name)? {
        made.forget(KEPT, &format!("{name}={number}"))?;
    }
    Ok(())
}

fn remove_user(context: &Context<'_>, task: &AbsentUser) -> Result<Outcome> {
    let name = task.name.as_str();
    super::user::check_name(name)?;
    let made = Made::at(&task.made)?;
    let (user, group) = ours_of(task)?;
    if user && let Ok(Some(user)) = User::from_name(name) {
        if user.uid.is_root() || user.uid.as_raw() >= 1000 {
            return Err(Failure::refused(
                format!("the user {name} has the number {}: it is not a system user of ours", user.uid),
                "remove it by hand if it must go",
            ));
        }
        // Many `userdel` take the group of that name along when it is the user's own. One that was there before stays:
        // it is not the user's own any more.
        let kept = Group::from_name(name).ok().flatten().filter(|_| !group);
        let none =
            ["nogroup", "nobody"].into_iter().find(|other| matches!(Group::from_name(other), Ok(Some(_))));
        if let Some(none) = none.filter(|_| kept.is_some()) {
            Invocation::new("usermod", &["--gid", none, name])?.check(context.deadline.left())?;
        }
        if let Some(kept) = kept {
            made.note(KEPT, &format!("{name}={}", kept.gid))?;
        }
        Invocation::new("userdel", &[name])?.check(context.deadline.left())?;
    }
    make_group_again(&made, name, &[], &context.deadline)?;
    made.forget("user", name)?;
    // Often gone with its user.
    if group && matches!(Group::from_name(name), Ok(Some(_))) {
        Invocation::new("groupdel", &[name])?.check(context.deadline.left())?;
    }
    made.forget("group", name)?;
    Ok(Outcome::changed(format!("removed the user {name}")))
}
