"use strict";

// The theme: the system's until the button chooses, and then what was chosen, where the browser keeps it.
{
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  // Storage throws where a page is opened from a file or cookies are refused; the choice then lasts for the page.
  const stored = (action) => { try { return action(localStorage); } catch { return null; } };
  const chosen = stored((store) => store.getItem("ddrank-theme"));
  if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const announce = () => {
    document.getElementById("theme").setAttribute("aria-pressed", String(isDark()));
    document.dispatchEvent(new Event("themechange"));
  };
  document.addEventListener("DOMContentLoaded", () => {
    announce();
    system.addEventListener("change", announce);
    document.getElementById("theme").addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      stored((store) => store.setItem("ddrank-theme", root.dataset.theme));
      announce();
    });
  });
}

// Copy buttons: the text of the block that they stand in.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("button.copy");
  if (!button) return;
  const code = button.parentElement.querySelector("code");
  let done = "Copied";
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {
    // No clipboard without https: select the text, which Ctrl+C then copies.
    getSelection().selectAllChildren(code);
    done = "Selected";
  }
  button.textContent = done;
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
});
