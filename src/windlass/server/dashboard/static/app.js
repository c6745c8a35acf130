// Keeps a page fresh: hears from the ledger, fetches the page again and swaps the parts that changed.
// Without this script every page works the same, by reloading.
"use strict";

(() => {
  const shared = document.currentScript.dataset.shared;
  const pulse = document.getElementById("pulse");
  const live = (root) => [...root.querySelectorAll("main [data-live][id]")];
  const drawn = new Map(live(document).map((part) => [part.id, part.outerHTML]));
  const head = () => Number(document.querySelector("[data-head]")?.dataset.head ?? 0);
  const QUIET_MS = 15000;
  let announcedAt = -QUIET_MS;
  let fetching = false;
  let wanted = false;

  // Said to those who do not see the change; a busy ledger does not talk without pause.
  const announce = (words, always) => {
    if (!words || (!always && performance.now() - announcedAt < QUIET_MS)) return;
    announcedAt = performance.now();
    document.getElementById("announced").textContent = words;
  };

  const selecting = () => {
    const selection = getSelection();
    return !selection.isCollapsed && live(document).some((part) => part.contains(selection.anchorNode));
  };

  // What a person did to the page stays: focus, open details, sideways scrolling, words not sent yet.
  const keeping = (change, sent) => {
    const focused = document.activeElement?.id;
    const written = [...document.querySelectorAll("main textarea[id]")].filter((one) => one.form !== sent).map((one) => [one.id, one.value]);
    const open = [...document.querySelectorAll("main details[id]")].map((one) => [one.id, one.open]);
    const scrolled = [...document.querySelectorAll("main .scroll[id]")].map((one) => [one.id, one.scrollLeft, one.scrollTop]);
    change();
    for (const [id, was] of open) {
      const details = document.getElementById(id);
      if (details) details.open = was;
    }
    for (const [id, words] of written) {
      const field = document.getElementById(id);
      if (field) field.value = words;
    }
    for (const [id, left, top] of scrolled) document.getElementById(id)?.scrollTo({ left, top, behavior: "instant" });
    if (focused && document.activeElement?.id !== focused) document.getElementById(focused)?.focus({ preventScroll: true });
  };

  const swap = (text, sent) => {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    const parts = live(fresh);
    const here = live(document).map((part) => part.id).join();
    keeping(() => {
      if (parts.map((part) => part.id).join() !== here) {
        document.getElementById("main").replaceChildren(...fresh.getElementById("main").childNodes);
        drawn.clear();
      }
      for (const part of parts) {
        const html = part.outerHTML;
        if (drawn.get(part.id) === html) continue;
        drawn.set(part.id, html);
        if (!part.isConnected || part.ownerDocument !== document) document.getElementById(part.id).replaceWith(part);
      }
    }, sent);
    if (fresh.title) document.title = fresh.title;
    announce(document.querySelector("[data-says]")?.dataset.says, false);
  };

  const refresh = async () => {
    wanted = true;
    if (fetching || document.hidden || selecting()) return;
    fetching = true;
    try {
      while (wanted) {
        wanted = false;
        const asked = location.href;
        const answer = await fetch(asked, { headers: { "x-partial": "1" } });
        const text = await answer.text();
        if (location.href !== asked) wanted = true; // a form has shown something newer meanwhile
        else if (!answer.headers.get("x-partial")) location.reload();
        else if (answer.ok) swap(text);
      }
    } catch {
      wanted = true; // the server is away; the stream tells when it is back
    } finally {
      fetching = false;
    }
  };

  const heard = (message) => {
    if (message.state && pulse) {
      const words = message.state === "live" ? "Live" : "Reconnecting…";
      if (pulse.textContent !== words) pulse.textContent = words;
      pulse.classList.toggle("live", message.state === "live");
    }
    if (message.head && Number(message.head) !== head()) refresh();
  };

  const listen = () => {
    if (window.SharedWorker) {
      const port = new SharedWorker(shared, { name: "windlass" }).port;
      port.onmessage = (event) => heard(event.data);
      port.start();
      addEventListener("pagehide", () => port.postMessage("bye"));
      addEventListener("pageshow", (event) => event.persisted && port.postMessage("hello"));
      return;
    }
    const source = new EventSource("/events");
    source.onopen = () => heard({ state: "live" });
    source.onerror = () => heard({ state: "lost" });
    source.addEventListener("head", (event) => heard({ head: event.data }));
    addEventListener("pagehide", () => source.close());
  };

  if (document.querySelector("[data-head]")) {
    listen();
    document.addEventListener("visibilitychange", () => wanted && refresh());
    document.addEventListener("selectionchange", () => wanted && !selecting() && refresh());
  }

  // A question under way says so; the page that comes back from the history does not.
  const ask = document.getElementById("ask");
  if (ask) {
    const asking = document.getElementById("asking");
    const button = document.getElementById("ask-button");
    ask.addEventListener("submit", (event) => {
      if (button.hasAttribute("aria-busy")) return event.preventDefault();
      asking.textContent = asking.dataset.busy;
      button.setAttribute("aria-busy", "true");
    });
    addEventListener("pageshow", () => {
      asking.textContent = "";
      button.removeAttribute("aria-busy");
    });
  }

  // Feedback without leaving the place; where that fails, the form goes the plain way.
  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.matches("form[data-swap]")) return;
    event.preventDefault();
    if (form.hasAttribute("aria-busy")) return;
    form.setAttribute("aria-busy", "true");
    try {
      const body = new URLSearchParams(new FormData(form));
      const answer = await fetch(form.action, { method: "POST", body, headers: { "x-partial": "1" } });
      if (!answer.ok || !answer.headers.get("x-partial")) throw new Error(answer.statusText);
      swap(await answer.text(), form);
      announce(document.getElementById("confirmed")?.textContent, true);
      history.replaceState(null, "", answer.url);
    } catch {
      form.submit();
    }
  });
})();
