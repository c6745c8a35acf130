// One event stream for all tabs of a browser: browsers allow few connections to a host, and one is enough.
"use strict";

const AGAIN_MS = 5000;
const ports = new Set();
let source = null;
let last = {};

const tell = (message) => {
  last = { ...last, ...message };
  for (const port of ports) port.postMessage(message);
};

const open = () => {
  if (source || !ports.size) return;
  source = new EventSource("/events");
  source.onopen = () => tell({ state: "live" });
  source.addEventListener("head", (event) => tell({ head: event.data }));
  source.onerror = () => {
    tell({ state: "lost" });
    if (source.readyState === EventSource.CLOSED) {
      source = null;
      setTimeout(open, AGAIN_MS);
    }
  };
};

const join = (port) => {
  ports.add(port);
  port.postMessage(last);
  open();
};

const leave = (port) => {
  ports.delete(port);
  if (!ports.size && source) {
    source.close();
    source = null;
    last = {};
  }
};

onconnect = (event) => {
  const [port] = event.ports;
  port.onmessage = (message) => (message.data === "bye" ? leave(port) : join(port));
  join(port);
};
