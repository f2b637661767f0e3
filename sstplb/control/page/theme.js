// Light, dark, or as the system has it. The choice stays in this browser.

import { byId, setText } from "./dom.js";

const KEY = "sstplb.theme";
const NEXT = { auto: "light", light: "dark", dark: "auto" };

export function startTheme() {
  const button = byId("theme");
  const apply = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    setText(button, { auto: "Theme: auto", light: "Theme: light", dark: "Theme: dark" }[theme]);
    button.title = `Change to ${NEXT[theme]}`;
  };
  const stored = () => (NEXT[localStorage.getItem(KEY)] ? localStorage.getItem(KEY) : "auto");
  button.addEventListener("click", () => {
    const theme = NEXT[stored()];
    localStorage.setItem(KEY, theme);
    apply(theme);
  });
  apply(stored());
}
