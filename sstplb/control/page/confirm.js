// Asking before something is done, and saying what became of it.

import { byId, setText } from "./dom.js";

const SAID_MS = 6000;
let silence;

// Ask; when the answer is yes, `run` it, and close when it is done. What goes wrong is said in place.
// `choice` is {label, options: [[value, text], …]}; `run` is given the value that was chosen.
export function confirm({ title, text, yes, isDanger = false, choice = null, run }) {
  const dialog = byId("confirm");
  const button = byId("confirm-yes");
  const error = byId("confirm-error");
  setText(byId("confirm-title"), title);
  setText(byId("confirm-text"), text);
  setText(button, yes);
  button.className = isDanger ? "danger" : "main";
  button.disabled = false;
  error.hidden = true;
  const select = byId("confirm-select");
  byId("confirm-choice").hidden = choice === null;
  setText(byId("confirm-choice-label"), choice?.label ?? "");
  select.replaceChildren(...(choice?.options ?? []).map(([value, said]) => new Option(said, value)));
  button.onclick = async () => {
    button.disabled = true;
    error.hidden = true;
    try {
      const done = await run(select.value);
      dialog.close();
      say(done);
    } catch (failure) {
      setText(error, failure.message);
      error.hidden = false;
      button.disabled = false;
    }
  };
  byId("confirm-no").onclick = () => dialog.close();
  dialog.showModal();
  byId("confirm-no").focus();
}

// Say what was done, for eyes and for screen readers.
export function say(text) {
  const place = byId("said");
  setText(place, text);
  place.classList.add("seen");
  clearTimeout(silence);
  silence = setTimeout(() => place.classList.remove("seen"), SAID_MS);
}
