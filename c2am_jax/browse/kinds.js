"use strict";
(() => {
  const choice = document.getElementById("kind");
  if (!choice) return;
  const pictures = [...document.querySelectorAll("#suspects [data-kinds]")], status = document.getElementById("shown");
  const show = () => {
    let shown = 0;
    for (const picture of pictures) {
      picture.hidden = Boolean(choice.value) && !picture.dataset.kinds.split(" ").includes(choice.value);
      shown += !picture.hidden;
    }
    status.textContent = `${shown} of ${pictures.length} ${pictures.length === 1 ? "picture" : "pictures"}`;
  };
  choice.addEventListener("change", show);
  show();
})();
