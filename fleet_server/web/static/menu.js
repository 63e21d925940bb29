// The menu opens and closes without any script; with it, it also closes by Escape, and when one goes on elsewhere.
const menu = document.querySelector(".top .menu");
if (menu) {
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !menu.open) return;
    menu.open = false;
    menu.querySelector("summary").focus();
  });
  const leave = (target) => { if (menu.open && target && !menu.contains(target)) menu.open = false; };
  menu.addEventListener("focusout", (event) => leave(event.relatedTarget));
  document.addEventListener("pointerdown", (event) => leave(event.target));
}
