// Where requests go: to the server, or to a notebook's kernel.

/** Connection over HTTP: JSON by POST, images by GET. */
export function httpConnection() {
  return {
    async request(kind, payload) {
      const reply = await fetch(`/api/${kind}`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(payload),
        signal: AbortSignal.timeout(30000),
      });
      const json = (reply.headers.get("content-type") || "").includes("json");
      return { status: reply.status, response: json ? await reply.json() : { error: (await reply.text()).trim() } };
    },
    async image(kind, name) {
      const reply = await fetch(`/${kind}/${name}.jpg`, { signal: AbortSignal.timeout(30000) });
      if (!reply.ok) throw new Error(String(reply.status));
      return reply.blob();
    },
    close() {},
  };
}

/** Connection to a notebook's kernel: numbered messages, images as buffers. */
export function kernelConnection(model) {
  const pending = new Map();
  let last = 0;
  const prefix = Math.random().toString(36).slice(2);
  const onMessage = (message, buffers) => {
    const resolve = pending.get(message?.id);
    if (!resolve) return;
    pending.delete(message.id);
    resolve({ status: message.status, response: message.response, buffers });
  };
  model.on("msg:custom", onMessage);
  const send = (kind, payload) =>
    new Promise((resolve, reject) => {
      const id = `${prefix}-${last++}`;
      pending.set(id, resolve);
      setTimeout(() => pending.delete(id) && reject(new Error("the kernel does not respond")), 60000);
      model.send({ id, kind, payload });
    });
  return {
    kernel: true,
    request: send,
    async image(kind, name) {
      const { status, buffers } = await send(kind, { name });
      if (status !== 200) throw new Error(String(status));
      return new Blob([buffers[0]], { type: "image/jpeg" });
    },
    close() {
      model.off("msg:custom", onMessage);
    },
  };
}
