# Help texts, found by the names of commands and flags.

about = Maxim: a private chat for your company, from bare hosts to a delivered message.
help-usage = Usage
help-commands = Commands
help-arguments = Arguments
help-options = Options
help-global = Options of every command

example-top = Begin:
    { "  " }./maxim.ctl install                                   on this machine
    { "  " }./maxim.ctl install -f cluster.yaml --bundle FILE     on the hosts of a topology

flag-help = Show this help
flag-version = Show the version
flag-file = The topology, a cluster.yaml
flag-cluster = A cluster that was installed from here, by its name
flag-bundle = The bundle to install from
flag-trust-key = The public key (minisign) that must have signed the bundle
flag-set = Override one value of the topology by its dotted path, as ports.xmpp=15222; may be repeated
flag-yes = Answer questions with yes (never the one about a bundle's key)
flag-dry-run = Change nothing, show what would be done
flag-output = What stands on standard output
flag-root = Where an embedded deployment lives [default: ~/.local/share/maxim]
flag-concurrency = Hosts worked on at the same time
flag-force = Let a blocking check pass, by its name as memory.total; may be repeated
flag-accept-state = Take over a newer state of the cluster that has other addresses, local files or another authority
flag-strict = End with exit code 4 when there were warnings
flag-ask-sudo-password = Ask for the sudo password of all hosts before beginning
flag-timings = Show where the time went, phase by phase and host by host
flag-quiet = Say only results, warnings and errors
flag-verbose = Say more; -vv: everything
flag-no-color = No colours (as the environment variable NO_COLOR)

command-install = Install, or bring up to date: check, plan, ask, apply, verify
example-install = Examples:
    { "  " }./maxim.ctl install --yes
    { "  " }./maxim.ctl install -f cluster.yaml --bundle maxim.bundle
    { "  " }./maxim.ctl install --nodelist 10.77.0.11 10.77.0.12 10.77.0.13 --set domain=im.acme.example
argument-install-nodelist = Make a topology from these addresses: the last two are database and cache
argument-install-profile = For this machine: embedded (no root, no systemd) or standard

command-check = Probe the hosts and judge what was measured; changes nothing
example-check = Example:
    { "  " }./maxim.ctl check -f cluster.yaml
argument-check-nodelist = Make a topology from these addresses
argument-check-profile = For this machine: embedded or standard

command-plan = Show what an install would change; with -o as a file for `apply`
example-plan = Example:
    { "  " }./maxim.ctl plan -f cluster.yaml --bundle maxim.bundle -o change.plan
argument-plan-nodelist = Make a topology from these addresses
argument-plan-profile = For this machine: embedded or standard
argument-plan-out = Keep the plan in this file

command-apply = Apply exactly the plan of a file
example-apply = Example:
    { "  " }./maxim.ctl apply change.plan --bundle maxim.bundle
argument-apply-plan = A file made by `plan -o`

command-status = Show every host and component as measured now
example-status = Example:
    { "  " }./maxim.ctl status --output json

command-start = Start the services, stores first
example-start = Example:
    { "  " }./maxim.ctl start
argument-start-component = Only this component

command-stop = Stop the services, stores last
example-stop = Example:
    { "  " }./maxim.ctl stop console
argument-stop-component = Only this component

command-restart = Restart the services in their order
example-restart = Example:
    { "  " }./maxim.ctl restart im
argument-restart-component = Only this component

command-config = Read and change the configuration; find drift
example-config = Examples:
    { "  " }./maxim.ctl config get ports
    { "  " }./maxim.ctl config set settings.im.registration.in_band true
    { "  " }./maxim.ctl config diff
command-config-get = Show what is in force, with defaults
example-config-get = Example:
    { "  " }./maxim.ctl config get settings
argument-config-get-key = Dotted path; without it everything
command-config-set = Change one value of the topology, after checking the whole
example-config-set = Example:
    { "  " }./maxim.ctl config set ports.https 8443
argument-config-set-key = Dotted path
argument-config-set-value = The new value
command-config-diff = Show drift between what is wanted and what is found
example-config-diff = Example:
    { "  " }./maxim.ctl config diff

command-user = Accounts of people
example-user = Example:
    { "  " }./maxim.ctl user add ann@im.acme.example --name "Ann Lee"
command-user-add = Make an account; the password is asked for
example-user-add = Examples:
    { "  " }./maxim.ctl user add ann@im.acme.example --name "Ann Lee"
    { "  " }./maxim.ctl user add bob --password-stdin < password-of-bob
argument-user-add-address = Address, or the part before the @
argument-user-add-name = Name that others see
argument-user-add-password-stdin = Read the password from standard input
command-user-list = List all accounts
example-user-list = Example:
    { "  " }./maxim.ctl user list
command-user-passwd = Set a new password
example-user-passwd = Example:
    { "  " }./maxim.ctl user passwd ann@im.acme.example
argument-user-passwd-address = Address, or the part before the @
argument-user-passwd-password-stdin = Read the password from standard input
command-user-disable = Forbid an account to log in; what it has is kept
example-user-disable = Example:
    { "  " }./maxim.ctl user disable ann@im.acme.example
argument-user-disable-address = Address, or the part before the @
command-user-enable = Let an account log in again
example-user-enable = Example:
    { "  " }./maxim.ctl user enable ann@im.acme.example
argument-user-enable-address = Address, or the part before the @
command-user-remove = Remove an account with all that belongs to it
example-user-remove = Example:
    { "  " }./maxim.ctl user remove ann@im.acme.example
argument-user-remove-address = Address, or the part before the @
command-user-import = Make accounts from a CSV file with the columns address,password,name,groups
example-user-import = Example:
    { "  " }./maxim.ctl user import staff.csv
argument-user-import-list = The file; its first line names the columns

command-logs = Show the last lines of the logs
example-logs = Example:
    { "  " }./maxim.ctl logs im --host app1 -n 200
argument-logs-component = Only this component
argument-logs-host = Only this host
argument-logs-lines = Lines of each component on each host

command-doctor = Find out what is wrong, what shows it, and what to do
example-doctor = Example:
    { "  " }./maxim.ctl doctor

command-support-bundle = Gather what somebody elsewhere needs to find out what is wrong, in one file without secrets
example-support-bundle = Examples:
    { "  " }./maxim.ctl support-bundle
    { "  " }./maxim.ctl support-bundle -o acme.tar.zst -n 5000
argument-support-bundle-out = The file to make; nothing is overwritten [default: maxim-support-NAME-TIME.tar.zst here]
argument-support-bundle-lines = Lines of each log on each host

command-unlock = Show who holds the locks of a cluster; remove those left behind
example-unlock = Examples:
    { "  " }./maxim.ctl unlock
    { "  " }./maxim.ctl unlock --expired
argument-unlock-expired = Remove locks whose lease expired
argument-unlock-owner = Remove the locks of this owner, as shown

command-console = The console
example-console = Example:
    { "  " }./maxim.ctl console passwd
command-console-passwd = Set a new password for its administrator, end all its sessions, lift all locks
example-console-passwd = Examples:
    { "  " }./maxim.ctl console passwd
    { "  " }./maxim.ctl console passwd --password-stdin < new-password
argument-console-passwd-password-stdin = Read the password from standard input; without it one is made, and written to a file that only you can read

command-ca = The cluster's private certificate authority
example-ca = Example:
    { "  " }./maxim.ctl ca export -o ca.pem
command-ca-export = Write its certificate, for phones and browsers to trust
example-ca-export = Examples:
    { "  " }./maxim.ctl ca export -o ca.pem
    { "  " }./maxim.ctl ca export --format mobileconfig -o maxim.mobileconfig
argument-ca-export-out = The file; without it standard output
argument-ca-export-format = Form of the certificate

command-bundle = The one file to install from without a network
example-bundle = Example:
    { "  " }./maxim.ctl bundle build
command-bundle-build = Build the bundle from this checkout
example-bundle-build = Example:
    { "  " }./maxim.ctl bundle build -o maxim.bundle
argument-bundle-build-out = The file to write
argument-bundle-build-relock = Take the package versions that are served today, and write them into the lock file
argument-bundle-build-key = Secret key (minisign) to sign with [default: the developer's key of this machine]
command-bundle-verify = Read a whole bundle and check every byte of it
example-bundle-verify = Example:
    { "  " }./maxim.ctl bundle verify maxim.bundle --trust-key maxim.bundle.pub
argument-bundle-verify-path = The bundle
command-bundle-inspect = Show what is in a bundle
example-bundle-inspect = Example:
    { "  " }./maxim.ctl bundle inspect maxim.bundle
argument-bundle-inspect-path = The bundle

command-upgrade = Go to the version of a bundle, host by host, and back by itself when it fails
example-upgrade = Examples:
    { "  " }./maxim.ctl upgrade --bundle maxim-next.bundle --dry-run
    { "  " }./maxim.ctl upgrade --bundle maxim-next.bundle
    { "  " }./maxim.ctl upgrade --finalize
argument-upgrade-finalize = Pass the point of no return: take away what only the version before needed
argument-upgrade-no-snapshot = Go on although no snapshot is taken first

command-rollback = Go back to the version before, as long as the upgrade was not finalized
example-rollback = Example:
    { "  " }./maxim.ctl rollback --dry-run

command-host = The hosts of a cluster
example-host = Example:
    { "  " }./maxim.ctl host replace db1 10.77.0.22
command-host-replace = Put a new host in the place of a dead one, with its roles and, from a backup, its data
example-host-replace = Examples:
    { "  " }./maxim.ctl host replace db1 10.77.0.22 --bundle maxim.bundle --dry-run
    { "  " }./maxim.ctl host replace app1 10.77.0.23 --name app9 --bundle maxim.bundle
argument-host-replace-host = The dead host
argument-host-replace-address = Address of the host in its place
argument-host-replace-name = Its name, when it shall be another
argument-host-replace-from = The backup set that its data comes from [default: the newest]
argument-host-replace-without-data = Go on without the data that the dead host had
argument-host-replace-alive = The host may be alive: stop its services where that is possible

command-uninstall = Remove everything but the data; with --purge the data, too
example-uninstall = Example:
    { "  " }./maxim.ctl uninstall --dry-run
argument-uninstall-purge = Remove data, users and the cluster's secrets, too

command-completion = Print completions for a shell
example-completion = Example:
    { "  " }./maxim.ctl completion bash > /etc/bash_completion.d/maxim.ctl
argument-completion-shell = The shell

## Backups

command-backup = Make, verify and restore backups
example-backup = Example:
    { "  " }./maxim.ctl backup create
command-backup-create = Make a set of everything while the cluster serves
example-backup-create = Example:
    { "  " }./maxim.ctl backup create
argument-backup-create-scheduled = Count it as a run of the schedule, and apply retention afterwards
command-backup-list = Show the sets in the repository
example-backup-list = Example:
    { "  " }./maxim.ctl backup list --output json
command-backup-verify = Check the repository and read a share of its data again
example-backup-verify = Examples:
    { "  " }./maxim.ctl backup verify --share 100
    { "  " }./maxim.ctl backup verify --deep
argument-backup-verify-share = Percent of the data that is read again
argument-backup-verify-wanted = The set that is compared with its manifest; default: the newest
argument-backup-verify-deep = Read every part of that set whole and compare it
command-backup-restore = Put a set back, or rebuild a cluster from its recovery kit
example-backup-restore = Examples:
    { "  " }./maxim.ctl backup restore --overwrite
    { "  " }./maxim.ctl backup restore --kit recovery-kit.json --password-file password
argument-backup-restore-wanted = The set; default: the newest
argument-backup-restore-only = Restore this part only
argument-backup-restore-overwrite = What is there may be replaced; a safety set of it is made first
argument-backup-restore-without-safety-set = With --overwrite: what is there cannot be read any more, and is set aside without a safety set of it
argument-backup-restore-kit = File of the recovery kit, to rebuild a cluster whose state is gone
argument-backup-restore-password-file = File of mode 0600 with the password on the kit's page
argument-backup-restore-password-stdin = Read that password from standard input
command-backup-drill = Restore the newest set into scratch, start it, read a message, clean up
example-backup-drill = Example:
    { "  " }./maxim.ctl backup drill
argument-backup-drill-wanted = The set; default: the newest
command-backup-schedule = Show when backups are made
example-backup-schedule = Examples:
    { "  " }./maxim.ctl backup schedule
    { "  " }./maxim.ctl config set backup.schedule "0 3 * * *"
argument-backup-schedule-run = Keep the schedule: what the service of an embedded deployment runs
argument-backup-schedule-once = Do what is owed now, and end: what the timer starts
command-backup-prune = Remove sets that retention does not keep; --dry-run shows which
example-backup-prune = Example:
    { "  " }./maxim.ctl backup prune --dry-run
command-backup-key = The key of the repository
example-backup-key = Example:
    { "  " }./maxim.ctl backup key export
command-backup-key-export = Show what any restic needs, and where the recovery kit lies
example-backup-key-export = Example:
    { "  " }./maxim.ctl backup key export --output json
