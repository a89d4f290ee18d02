// Makes pages that already work a little better: times in the viewer's zone, figures that refresh.
// Needs nothing: without it a browser shows UTC and reloads the page every half minute.
"use strict";

(() => {
  const EVERY = 5000;
  const PATIENCE = 10000;
  const language = document.documentElement.lang;
  const format = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium" });

  const localTimes = (root) => {
    for (const time of root.querySelectorAll("time[datetime]")) {
      const date = new Date(time.dateTime);
      if (!Number.isNaN(date.getTime())) time.textContent = format.format(date);
    }
  };
  localTimes(document);

  if (!document.body.hasAttribute("data-live")) return;
  const offline = document.getElementById("offline");

  const part = (root, name) => root.querySelector(`[data-part="${name}"]`);

  // Replaces what changed and keeps the keyboard where it is.
  const show = (fresh) => {
    localTimes(fresh);
    for (const old of document.querySelectorAll("[data-part]")) {
      const now = part(fresh, old.dataset.part);
      if (!now) continue;
      if (old.className !== now.className) old.className = now.className;
      if (old.innerHTML === now.innerHTML) continue;
      const focused = old.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
      old.replaceChildren(...Array.from(now.childNodes, (node) => document.importNode(node, true)));
      if (focused) {
        for (const link of old.querySelectorAll("a[href]")) {
          if (link.getAttribute("href") === focused) { link.focus({ preventScroll: true }); break; }
        }
      }
    }
    document.title = fresh.title;
  };

  const setOffline = (is) => {
    if (offline) offline.hidden = !is;
    document.body.classList.toggle("offline", is);
  };

  const refresh = async () => {
    if (document.hidden) return;
    const selection = window.getSelection();
    if (selection && !selection.isCollapsed) return; // Somebody is copying.
    try {
      const answer = await fetch(location.href, {
        headers: { "x-maxim-refresh": "1" },
        redirect: "error",
        signal: AbortSignal.timeout(PATIENCE),
      });
      if (answer.status === 401) { location.reload(); return; }
      if (!answer.ok) throw new Error(String(answer.status));
      show(new DOMParser().parseFromString(await answer.text(), "text/html"));
      setOffline(false);
    } catch {
      setOffline(true);
    }
  };

  const loop = () => setTimeout(async () => { await refresh(); loop(); }, EVERY);
  loop();
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
})();
