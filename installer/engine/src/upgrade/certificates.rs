//! Certificates of the operator's own (`tls: {mode: files}`), which are renewed when they like: what proves a turn pins
//! the one that the file holds now, so every node must serve that one, before the upgrade and after the way back.

use crate::context::Context;
use crate::error::EngineError;
use crate::render::context::read_pem;
use maxim_model::Secret;
use maxim_model::names::Role;
use maxim_model::task::{CertificateTask, Change, Task, TaskKind};
use maxim_model::topology::Tls;

/// Whether clients meet the certificate of a task, so that it comes from the files.
fn is_public(task: &Task) -> bool {
    matches!(task.kind, TaskKind::Certificate(_))
        && [Role::Im, Role::Console].iter().any(|role| task.component == role.name())
}

/// Refuses an upgrade that would bring a renewed certificate along: nodes whose turn has not come would serve the old one.
pub(super) fn refuse_renewed(
    context: &Context,
    tasks: &[Vec<Task>],
    changes: &[Vec<Change>],
) -> Result<(), EngineError> {
    let Tls::Files { cert, .. } = &context.topology.tls else { return Ok(()) };
    let renewed = tasks.iter().zip(changes).zip(&context.topology.hosts).find(|((tasks, changes), _)| {
        tasks.iter().zip(*changes).any(|(task, change)| is_public(task) && *change != Change::None)
    });
    renewed.map_or(Ok(()), |(_, host)| {
        Err(EngineError::refused("upgrade", format!("{cert} is not the certificate that this host serves"))
            .on(&host.name)
            .hint("bring the renewed certificate to all hosts first, with `maxim.ctl install` of the installed version; then upgrade"))
    })
}

/// Puts what the files hold now into the tasks of a version before.
pub(super) fn renew(context: &Context, tasks: &mut [Task]) {
    let Tls::Files { cert, key } = &context.topology.tls else { return };
    // Files that cannot be read are said by whoever pins them; the way back is gone as far as it goes.
    let (Ok(chain), Ok(secret)) = (read_pem(cert), read_pem(key)) else { return };
    for task in tasks.iter_mut().filter(|task| is_public(task)) {
        if let TaskKind::Certificate(CertificateTask { certificate, key, .. }) = &mut task.kind {
            certificate.clone_from(&chain);
            *key = Secret::new(secret.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{refuse_renewed, renew};
    use crate::sample;
    use crate::state::StateDir;
    use maxim_model::Secret;
    use maxim_model::names::Stage;
    use maxim_model::task::{CertificateTask, Change, Task, TaskKind};
    use maxim_model::topology::Tls;

    fn certificate(component: &str) -> Task {
        Task {
            component: component.into(),
            kind: TaskKind::Certificate(CertificateTask {
                certificate_path: "/c".into(),
                key_path: "/k".into(),
                certificate: "old".into(),
                key: Secret::new("old"),
                owner: String::new(),
                group: String::new(),
                key_mode: "0640".into(),
            }),
            ..sample::task(&format!("{component}/certificate"), Stage::Core)
        }
    }

    #[test]
    fn a_renewed_certificate_goes_to_all_hosts_before_an_upgrade_and_stays_on_the_way_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(file("cert"), "new").unwrap();
        std::fs::write(file("key"), "new key").unwrap();
        let mut context = sample::context(sample::single_host(), StateDir::at(folder.path()));
        let tasks = vec![vec![certificate("mariadb"), certificate("im")]];
        let new = || Change::Create { summary: String::new(), diff: String::new() };
        let changes = |im: Change| vec![vec![new(), im]];
        refuse_renewed(&context, &tasks, &changes(new())).unwrap();
        context.topology.tls = Tls::Files { cert: file("cert"), key: file("key") };
        refuse_renewed(&context, &tasks, &changes(Change::None)).unwrap();
        let refused = refuse_renewed(&context, &tasks, &changes(new())).unwrap_err();
        assert!(refused.exit_code() == 5 && refused.hint.contains("install"), "{refused:?}");

        let mut back = tasks[0].clone();
        renew(&context, &mut back);
        assert_eq!(back[0], tasks[0][0], "the database's comes from our authority");
        let TaskKind::Certificate(im) = &back[1].kind else { panic!("{:?}", back[1]) };
        assert_eq!((im.certificate.as_str(), im.key.expose()), ("new", "new key"));
    }
}
