// A store of decisions for a page that `camshaft serve` serves: it sends them to the program, which writes
// them to OUT, and asks for those of others.

const ASKED_EVERY = 2000;
const SENT_AT_ONCE = 50_000;

class ServedDecisions extends BrowserDecisions {
  /** Decisions go to `address`. Those that are not there yet are kept in this browser. */
  constructor(runId, becauseOf, address) {
    super(`unsent:${runId}`, becauseOf);
    this.address = address;
    this.known = 0;
    this.unsent = new Map(this.all);
    this.sending = false;
    this.asking = false;
    const go = () => { if (!document.hidden) this.ask(); this.send(); };
    setInterval(go, ASKED_EVERY);
    document.addEventListener('visibilitychange', go);
    go();
  }

  put(key, decision, now) {
    super.put(key, decision, now);
    this.unsent.set(key, this.all.get(key));
  }

  /** Takes lines of a file: they are new to the program. */
  merge(lines) {
    const keys = super.merge(lines);
    for (const key of keys) this.unsent.set(key, this.all.get(key));
    if (keys.length > 0) this.store();
    return keys;
  }

  store() {
    this.unwritten = false;
    memory.set(this.name, packDecisions(this.unsent));
    this.send();
  }

  async send() {
    if (this.sending || this.unsent.size === 0) return;
    this.sending = true;
    const sent = new Map([...this.unsent].slice(0, SENT_AT_ONCE));
    try {
      const answer = await fetch(this.address, { method: 'POST', headers: { 'content-type': 'application/x-ndjson' }, body: writeDecisions(sent) });
      if (!answer.ok) throw new Error((await answer.text()).trim());
      for (const [key, line] of sent) if (this.unsent.get(key) === line) this.unsent.delete(key);
      memory.set(this.name, packDecisions(this.unsent));
      this.say(null);
    } catch (error) {
      this.say(`${counted(this.unsent.size, 'decision')} could not be written yet: ${error.message}. Leave this page open until camshaft serve answers again.`);
    }
    this.sending = false;
    // What was decided meanwhile. After an error the next attempt is made with the next question.
    if (this.unsent.size > 0 && !this.notice) this.send();
  }

  /** Asks what others have decided. */
  async ask() {
    if (this.asking) return;
    this.asking = true;
    try {
      const answer = await fetch(`${this.address}?known=${this.known}`);
      if (!answer.ok) throw new Error((await answer.text()).trim());
      const { lines } = readDecisions(await answer.text());
      this.known = Number(answer.headers.get('camshaft-known')) || this.known;
      if (lines.length > 0) super.merge(lines);
      if (this.unsent.size === 0) this.say(null);
    } catch (error) {
      // That decisions are not written yet is more important.
      if (this.unsent.size === 0) this.say(`camshaft serve does not answer: ${error.message}.`);
    }
    this.asking = false;
  }

  say(notice) {
    if (notice === this.notice) return;
    this.notice = notice;
    this.tell([]);
  }
}
