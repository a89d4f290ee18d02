//! XMPP addresses, stanzas and extensions, without I/O.
