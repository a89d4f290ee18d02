"""A client on slixmpp: signs in over STARTTLS with the given authority, says hello, waits for the answer, and
reads features, archive, carbons and ping. Arguments: HOST PORT OWN_ADDRESS PEER CA_FILE; the password is in
XMPP_PASSWORD. Prints what it found; exits 0 when all of it was there, 1 after 45 seconds."""

import asyncio
import os
import sys

import slixmpp

HOST, PORT, OWN, PEER, AUTHORITY = sys.argv[1:6]


class Client(slixmpp.ClientXMPP):
    def __init__(self):
        super().__init__(OWN, os.environ["XMPP_PASSWORD"])
        self.ca_certs = AUTHORITY
        self.answer = asyncio.get_event_loop().create_future()
        for plugin in ("xep_0030", "xep_0199", "xep_0280", "xep_0313"):
            self.register_plugin(plugin)
        self.add_event_handler("session_start", lambda _: asyncio.ensure_future(self.work()))
        self.add_event_handler("message", self.heard)
        self.add_event_handler("failed_all_auth", lambda _: self.fail("the password was refused"))
        self.done = asyncio.get_event_loop().create_future()

    def fail(self, why):
        if not self.done.done():
            self.done.set_exception(RuntimeError(why))

    def heard(self, message):
        if message["body"] == "hello slixmpp" and not self.answer.done():
            self.answer.set_result(message)

    async def work(self):
        try:
            self.send_presence()
            await self.get_roster()
            found = await self["xep_0030"].get_info(jid=self.boundjid.domain)
            features = set(found["disco_info"]["features"])
            wanted = {"urn:xmpp:carbons:2", "urn:xmpp:ping", "http://jabber.org/protocol/disco#info"}
            print("features:", "ok" if wanted <= features else sorted(wanted - features))
            await self["xep_0280"].enable()
            print("carbons: ok")
            await self["xep_0199"].send_ping(self.boundjid.domain)
            print("ping: ok")
            self.send_message(mto=PEER, mbody="hello from slixmpp", mtype="chat")
            await self.answer
            count = 0
            async for _ in self["xep_0313"].iterate(with_jid=slixmpp.JID(PEER)):
                count += 1
            print("archive:", count)
            self.done.set_result(None)
        except Exception as error:  # whatever it was, the test shows it
            self.fail(f"{type(error).__name__}: {error}")


async def main():
    client = Client()
    client.connect(HOST, int(PORT))
    try:
        await asyncio.wait_for(client.done, 45)
    finally:
        client.disconnect()


asyncio.run(main())
