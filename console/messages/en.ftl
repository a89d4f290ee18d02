# Messages of the console in English. zh-CN.ftl has the same keys in the same order.

## Frame
skip = Skip to content
nav-label = Sections
nav-overview = Overview
nav-hosts = Hosts
nav-components = Components
nav-settings = Settings
sign-out = Sign out
offline = The console does not answer. These figures are old. The page tries again by itself.

## Sign-in
sign-in = Sign in
sign-in-title = Sign in to the console
sign-in-help = For administrators. Chat accounts have no access here.
sign-in-account = Name
sign-in-password = Password
sign-in-wrong = Name or password is wrong. Check both and try again.
sign-in-locked = Too many wrong passwords. Try again in { $wait }.

## States
state-well = Well
state-attention = Attention
state-broken = Broken
state-unknown = Unknown
state-working = Working
state-was = Was: { $state }

## Freshness
fresh-ago = Measured { $ago } ago,
fresh-stale = These figures are { $ago } old. Measured
fresh-cause = The last measurement failed: { $cause }
fresh-hint = What to do: { $hint }

## Overview
overview-waiting = The cluster is being measured for the first time.
overview-never = Nothing is known: the cluster could not be measured.
overview-empty = Nothing is known: the topology names no component.
overview-stale = The state is unknown: the last measurement is { $ago } old.
overview-well = { $components ->
    [one] All well. One component on
   *[other] All well. { $components } components on
} { $hosts ->
    [one] one host
   *[other] { $hosts } hosts
} run and answer.
overview-broken = { $more ->
    [0] Broken: { $first }.
    [one] Broken: { $first }. One more thing is not well.
   *[other] Broken: { $first }. { $more } more things are not well.
}
overview-attention = { $more ->
    [0] All runs, but look at this: { $first }.
    [one] All runs, but look at this: { $first }, and one more.
   *[other] All runs, but look at this: { $first }, and { $more } more.
}
overview-unknown = { $more ->
    [0] Not known to be well: { $first }.
    [one] Not known to be well: { $first }, and one more.
   *[other] Not known to be well: { $first }, and { $more } more.
}
overview-working = { $more ->
    [0] Starting or stopping: { $first }.
    [one] Starting or stopping: { $first }, and one more.
   *[other] Starting or stopping: { $first }, and { $more } more.
}
overview-problems = What is not well
overview-figures = Figures
overview-endpoints = Where people connect
overview-endpoints-help = Chat addresses end in @{ $domain }.
problem-component = { $component } on { $host }
problem-version = Runs { $running }, should run { $wanted }.
problem-host-away = Host { $host } does not answer
problem-disk = Little disk space on { $host }
problem-memory = Little memory on { $host }
free-of = { $free } of { $total } free
figure-of = { $part } of { $whole }
figure-hosts = Hosts
figure-hosts-note = answer
figure-components = Components
figure-components-note = run and answer
figure-disk = Least free disk space
figure-memory = Least free memory
figure-tightest = of { $total } on { $host }
endpoint-web = Web chat
endpoint-xmpp = XMPP, STARTTLS
endpoint-xmpp-tls = XMPP, direct TLS
endpoint-console = Console

## Components by name
component-im = IM core
component-console = Console

## Tables
column-state = State
column-host = Host
column-address = Address
column-component = Component
column-components = Components
column-system = System
column-cpus = CPUs
column-memory-free = Memory free
column-disk-free = Disk free
column-running = Version
column-wanted = Wanted
column-memory = Memory
column-since = Runs for
column-restarts = Restarts
column-browser = Browser
column-began = Signed in
column-used = Last used
filter-hosts = Find a host
filter-components = Find a component
filter-not-well = Only what is not well
filter-apply = Show
filter-clear = Show all
filter-empty = Nothing matches. Choose “Show all” to see every row.

## Hosts
hosts-all = { $hosts ->
    [one] The host answers.
   *[other] All { $hosts } hosts answer.
}
hosts-some = { $away ->
    [one] One of { $hosts } hosts does not answer.
   *[other] { $away } of { $hosts } hosts do not answer.
}
hosts-empty = The hosts of the cluster appear here after the first measurement.
host-well = { $components ->
    [one] All well. Its component runs and answers.
   *[other] All well. Its { $components } components run and answer.
}
host-not-well = { $components ->
    [one] The component on this host is not well.
   *[other] { $wrong } of { $components } components on this host { $wrong ->
        [one] is
       *[other] are
    } not well.
}
host-away = This host does not answer. What runs on it is not known.
host-empty = No component runs on this host.
host-no-components = The topology gives this host no role. Roles are set under “hosts” in cluster.yaml.
host-facts = The machine
host-memory = Memory
host-disk = Data disk

## Components
components-all = { $components ->
    [one] The component runs and answers in the wanted version.
   *[other] All { $components } components run and answer in their wanted versions.
}
components-some = { $wrong ->
    [one] One of { $components } components is not well.
   *[other] { $wrong } of { $components } components are not well.
}
components-differ = { $wrong ->
    [one] One of { $components } components is not well: it runs in another version than wanted.
   *[other] { $wrong } of { $components } components are not well; { $differing } in another version than wanted.
}
components-empty = The components of the cluster appear here after the first measurement.

## Settings
settings-lead = You are signed in as { $name }.
settings-password = Password
settings-current = Current password
settings-new = New password
settings-new-help = At least { $shortest } characters. Several words are easy to remember and hard to guess.
settings-repeat = New password again
settings-password-effect = All other sessions end. To undo, change it again.
settings-password-change = Change the password
settings-password-done = The password was changed. All other sessions have ended.
settings-sessions = Sessions
settings-this-session = this one
settings-used-ago = { $ago } ago
settings-end-others = End all other sessions
settings-sessions-done = All other sessions have ended.
settings-about = About
settings-version = Version
password-wrong = The current password is wrong. Type it again.
password-short = The new password is too short. Use at least { $shortest } characters.
password-long = The new password is too long. Use at most 1024 bytes.
password-guessable = The new password is easy to guess. Use more different characters, and not your name.
password-same = The new password is the current one. Choose another.
password-differs = The two new passwords differ. Type the same one twice.

## What went wrong
error-not-found-title = This page does not exist
error-not-found = The address is wrong, or what it showed is no longer part of the cluster.
error-signed-out-title = You are signed out
error-signed-out = The session has ended. Nothing was changed. Sign in and do it again.
error-token-title = The form is out of date
error-token = It was opened before you signed in or out. Nothing was changed. Open the page again and send the form once more.
error-form-title = The form could not be read
error-form = It was incomplete or too large. Nothing was changed. Open the page again and send the form once more.
error-busy-title = Too many sign-ins at once
error-busy = Nothing was changed. Wait ten seconds and try again.
error-broken-title = The console could not do this
error-broken = The cause is in the console’s log: maxim.ctl logs console. Then try again.
error-back = To the overview

## Durations
duration-seconds = { $value } s
duration-minutes = { $value } min
duration-hours = { $value } h
duration-days = { $value } d
