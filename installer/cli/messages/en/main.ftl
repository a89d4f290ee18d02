# What the command line says. Every key stands in zh-CN as well; a test compares them.

word-error = error
word-warning = warning
word-hint = hint

error-more = { $count ->
    [one] … and one more mistake
   *[other] … and { $count } more mistakes
}
interrupted = interrupted
interrupting = Interrupted: ending at the next safe point. Once more ends at once.

## Questions

ask-default-no = y/N
ask-apply = { $changes ->
    [one] Make this change?
   *[other] Make these { $changes } changes?
}
ask-sudo = Password for sudo on { $host }
ask-sudo-all = Password for sudo
ask-trust = The bundle is signed by a key with the fingerprint
    { "  " }{ $fingerprint }
    Is this the fingerprint that its publisher gave you?
ask-uninstall = Remove { $cluster } from its hosts (its data stays)?
ask-purge = Remove { $cluster } from its hosts with ALL its data?
ask-replace = Replace { $old }? It must never serve again.
ask-type-name = Type { $name } to go on:
ask-remove-user = Remove { $address } with all that belongs to it?
nobody-to-ask = there is a question, and nobody to answer it
nobody-to-ask-hint = answer it with --yes, or look first with --dry-run
declined = nothing was changed

password-new = New password
password-again = The same again
password-differs = the two passwords differ
password-differs-hint = type it again
password-nobody = a password is needed, and there is no terminal to ask for it
password-nobody-hint = give it on standard input with --password-stdin

## Which cluster, which profile

cluster-none = nothing is installed from here
cluster-none-hint = begin with `./maxim.ctl install`, or name a topology with -f
cluster-which = there are several deployments here: { $names }
cluster-which-hint = name one with --cluster NAME or -f FILE, or the embedded one by --root DIR
cluster-embedded = the embedded one in { $root }
reason-installed = it is what is installed here
reason-asked = asked for by --profile
reason-root-flag = --root names a folder for it
reason-not-root = not root
reason-no-systemd = systemd does not run here
reason-no-bundle = no bundle is beside the program or named by --bundle
reason-standard = root on a systemd host, with the bundle { $bundle }
component-absent = { $cluster } has no component { $component }
component-absent-hint = `status` shows the components that it has

## Phases

phase-name-connect = connect
phase-name-probe = probe
phase-name-check = check
phase-name-plan = plan
phase-name-apply = apply
phase-name-verify = verify
phase-connect = { $hosts ->
    [one] one host
   *[other] { $hosts } hosts
}
phase-check = { $checks } checks, { $warnings } warnings, { $blocked } blocking
phase-check-good = { $checks } checks, all good
phase-plan = { $changes ->
    [0] nothing to change
    [one] one change
   *[other] { $changes } changes
}
phase-apply = { $changes ->
    [0] nothing changed
    [one] one change made
   *[other] { $changes } changes made
}
phase-verify = { $messages ->
    [one] a message was delivered in { $time }
   *[other] { $messages } messages were delivered, the slowest in { $time }
}
step-agent-sent = , agent sent ({ $size })

## Install

install-begin = { $hosts ->
    [one] { $cluster }: one host, profile { $profile }
   *[other] { $cluster }: { $hosts } hosts, profile { $profile }
}
install-reason = { $profile }, because: { $reason }
install-done = { $changes ->
    [0] All well, nothing to change ({ $time }).
    [one] Installed and proven by a message: one change, { $time }.
   *[other] Installed and proven by a message: { $changes } changes, { $time }.
}
account-chat = Log in to the chat
account-console = Log in to the console
account-password = password
account-file = Passwords stand in { $path }
dns-records = Create these DNS records:
next = Next:
next-user = add a person
next-status = see how it is
next-ca = get the authority that phones and browsers shall trust
endpoint-web = Web chat
endpoint-xmpp = XMPP
endpoint-console = Console
plan-nothing = Nothing to change.
plan-sum = { $changes ->
    [one] One change
   *[other] { $changes } changes
} on { $hosts ->
    [one] one host.
   *[other] { $hosts } hosts.
}
plan-kept = Kept in { $path }. Apply exactly this with: { $command }
dry-run = Dry run: nothing was changed.

## Check

verdict-pass = good
verdict-info = info
verdict-warn = warning
verdict-block = blocks
check-threshold = {" "}({ $threshold })
check-fixed-by-plan = The install corrects this; the plan shows how.
check-sum = { $good } good, { $warnings } warnings, { $blocked } blocking. Nothing was changed.

## Status

status-well = all well
status-attention = runs, and something wants attention
status-stopped = stopped
status-broken = { $components ->
    [one] one component is broken
   *[other] { $components } components are broken
}
status-unknown = { $components ->
    [one] one component could not be measured
   *[other] { $components } components could not be measured
}
status-away = { $hosts ->
    [one] one host was not reached
   *[other] { $hosts } hosts were not reached
}
health-well = well
health-attention = attention
health-broken = broken
health-stopped = stopped
health-unknown = unknown
health-working = working
host-system = { $system }, { $cpus } CPUs
host-away = not reached: { $why }
version-differs = { $running } (wanted { $wanted })
column-host = HOST
column-address = ADDRESS
column-system = SYSTEM
column-memory-free = MEMORY FREE
column-disk-free = DISK FREE
column-component = COMPONENT
column-version = VERSION
column-health = HEALTH
column-memory = MEMORY
column-since = SINCE
column-phase = PHASE
column-time = TIME
column-name = NAME
column-state = STATE
column-created = CREATED
column-owner = OWNER
column-cluster = CLUSTER
column-member = MEMBER
column-kind = KIND
column-size = SIZE
column-unpacked = UNPACKED
column-roles = ROLES

## Config

config-set = { $key } is { $value } in the topology now. The hosts change with: { $command }
config-same = { $key } is { $value } already.
drift-none = No drift: everything found is as wanted.
drift-some = { $count ->
    [one] One thing is not as wanted; `install` puts it right.
   *[other] { $count } things are not as wanted; `install` puts them right.
}

## Users

user-added = { $address } may log in.
user-passwd = { $address } has a new password.
console-passwd-made = The administrator `admin` of the console has a new password. It stands in { $path }.
console-passwd-set = The administrator `admin` of the console has a new password.
user-disabled = { $address } may no longer log in; what it has is kept.
user-enabled = { $address } may log in again.
user-removed = { $address } is removed.
user-none = There are no accounts yet.
user-state-enabled = enabled
user-state-disabled = disabled
import-sum = { $created } made, { $there } there already, { $refused } refused
import-dry-run = { $count } accounts would be made. Nothing was changed.

## Certificate authority, bundle, doctor, locks, uninstall

ca-written = { $path }
    SHA-256 { $fingerprint }
bundle-built = { $path }  { $size }
    SHA-256 { $sha256 }
    signed by the key { $fingerprint }
    its public half: { $public }, for --trust-key
    Install with: { $command }
bundle-good = { $path } is whole: version { $version } for { $architecture }, { $members } members, { $size }, read in { $time }
    signed by the key { $fingerprint }
bundle-own-key = The key is the one that the bundle itself carries: compare the fingerprint with the publisher's, or give --trust-key.
bundle-head = Maxim { $version } for { $architecture }, { $size }, signed by the key { $fingerprint }
doctor-well = Nothing is wrong.
doctor-sum = { $broken } broken, { $warnings } warnings
support-made = { $path }: { $files } files, { $size }
support-missing = { $host }: { $what } is missing: { $why }
support-look = No password and no key is in it. Logs name addresses and hosts: look into it before you send it.
lock-free = free
lock-removed = removed
lock-expired = its lease expired
lock-held = held, lease ends in { $seconds } s
lock-hint = Remove those whose lease expired with --expired, or one owner's with --owner 'OWNER'.
replace-data = Data comes from the backup set { $set }: { $parts }.
replace-withdrawn = What the dead host knew holds no longer: { $what }.
replace-way = { $old } at { $address } ({ $roles }) is replaced by { $new } at { $to }.
replace-set = Its data ({ $parts }) comes from the backup set { $set } of { $point }. Everything since then is LOST.
replace-lost = What it had of this is LOST: { $parts }.
replace-withdraws = What it knew will hold no longer: { $what }.
replace-never-again = { $old } must be switched off and never come back with its services.
replace-done = { $old } is replaced by { $new } at { $address } ({ $changes } changes, { $time }).
uninstall-done = { $cluster } is uninstalled ({ $changes } things removed).
uninstall-left = Data was left:

## Upgrade

ask-upgrade = Upgrade to { $to }?
ask-finalize = Finalize the last upgrade? Afterwards there is no way back but a backup.
upgrade-needs-bundle = which bundle shall be upgraded to?
upgrade-needs-bundle-hint = name it with --bundle FILE; `upgrade --finalize` alone finishes the last upgrade
upgrade-way = From { $from } to { $to }, one host after the other: { $hosts }.
upgrade-resumes = An upgrade that was interrupted is completed; hosts that are done stay as they are.
upgrade-stages = { $size } go to the hosts before anything is switched.
upgrade-snapshot = A snapshot is taken first.
upgrade-no-snapshot = NO snapshot is taken first.
upgrade-schema = The schema of the database goes from { $now } to { $expanded } by adding only; the version before works on it.
upgrade-point = `rollback` goes back to { $from } until `upgrade --finalize` takes the schema to { $finalized }: that is the point of no return, and this run stops before it.
upgrade-point-plain = `rollback` goes back to { $from } until `upgrade --finalize`; nothing is taken from the schema.
upgrade-finalizes = This run passes the point of no return at its end: afterwards only a backup leads back.
upgrade-done = { $changes ->
    [0] { $to } runs already, nothing to change ({ $time }).
   *[other] Upgraded from { $from } to { $to } and proven by messages: { $changes } changes, { $time }.
}
upgrade-next = `maxim.ctl rollback` goes back. When all is well for good: `maxim.ctl upgrade --finalize`.
upgrade-finalized = The upgrade is finalized; there is nothing left of the version before.
rollback-done = Went back from { $from } to { $to } and proven by messages: { $changes } changes, { $time }.
status-upgrade = Upgrade from { $from } to { $to }: { $phase }.
status-upgrade-back = `maxim.ctl rollback` goes back to { $from }.
status-upgrade-failure = It failed: { $why }
phase-upgrade-staging = begun, nothing is switched yet
phase-upgrade-switching = hosts are being switched; complete it with `maxim.ctl upgrade`
phase-upgrade-rolling-back = hosts are being taken back; complete it with `maxim.ctl rollback`
phase-upgrade-rolled-back = taken back
phase-upgrade-switched = every host runs it, not finalized yet
phase-upgrade-finalizing = being finalized; complete it with `maxim.ctl upgrade --finalize`

## Backups

column-set = set
column-point = point
column-verified = verified
column-proven = proven
column-verdict = retention
set-manual = manual
set-scheduled = scheduled
set-safety = safety
backup-created = Set { $set }: { $size }, { $added } new in the repository, { $time }
backup-kit = The recovery kit was made. Print { $page }, keep it and { $file }
    away from this machine: with them and the repository everything can be rebuilt.
backup-none = There are no sets yet. Make one with: maxim.ctl backup create
backup-verified = Set { $set } is whole; { $percent } % of the repository was read again, { $compared } compared with the manifest, { $time }
backup-key = repository: { $repository }
    page: { $page }
    file: { $file }
backup-drilled = Set { $set } was restored and read: recovered in { $recovery }, { $lost } would be lost, { $tables } tables and { $rows } rows are right
prune-stays = stays: { $reasons }
prune-goes = goes
prune-incomplete = goes: never finished
restore-would = Set { $set } of { $point } would be restored, over:
restore-overwrites = { $part } on { $host }, { $size }
restore-done = Set { $set } of { $point } is restored and serves: { $tables } tables and { $rows } rows are right, { $time }, of which { $stopped } without service
restore-safety = What was there before is in the safety set { $set }
restore-state = The cluster's state of set { $set } is in { $path }
ask-restore = Put set { $set } of { $point } in its place?
ask-kit-password = Password on the page of the recovery kit
schedule-backup = backup
schedule-verify = verification
schedule-prune = removal of old sets, which failed
schedule-drill = trial restore
schedule-drill-by-hand = trial restore: not by itself, because the host that keeps the repository has no IM core to start; run `maxim.ctl backup drill` from here, or by the timer of this machine.
schedule-none = There is no schedule. Set one with: maxim.ctl config set backup.schedule "0 3 * * *"
schedule-next = { $schedule } in { $zone }; next { $next }
schedule-owed = A run was missed and is owed now.
status-backup = backup
status-backup-never = never
status-backup-last = { $age } ago, set { $set }, { $size }
status-verify = verified
status-verify-last = { $age } ago, set { $set }
status-drill = proven restore
status-drill-last = { $age } ago, recovered in { $recovery }, { $lost } would have been lost
status-backup-trouble = { $times ->
    [one] failed { $age } ago: { $trouble }
   *[other] failed { $times } times, the last time { $age } ago: { $trouble }
}
