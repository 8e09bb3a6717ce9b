"use strict";
(() => {
  const form = document.getElementById("choice");
  const found = document.getElementById("found");
  const nothing = document.getElementById("nothing");
  const boxes = [...form.elements.device];
  const articles = [...document.querySelectorAll("article")];
  const units = (article) => [...article.querySelectorAll("tbody tr, article > p, .code")];

  // The address holds what was chosen, so that a comparison can be passed on.
  const remembered = new URLSearchParams(location.search).get("devices");
  if (remembered !== null) {
    const names = remembered.split(",");
    for (const box of boxes) box.checked = names.includes(box.value);
  }

  function unmark(root) {
    for (const mark of root.querySelectorAll("mark")) mark.replaceWith(mark.textContent);
    root.normalize();
  }

  function mark(root, word) {
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    const texts = [];
    while (walker.nextNode()) texts.push(walker.currentNode);
    for (const text of texts) {
      const at = text.data.toLowerCase().indexOf(word);
      if (at < 0) continue;
      const hit = text.splitText(at);
      hit.splitText(word.length);
      const element = document.createElement("mark");
      hit.replaceWith(element);
      element.append(hit);
    }
  }

  function show() {
    const chosen = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    const word = form.elements.search.value.trim().toLowerCase();
    let hits = 0;
    for (const article of articles) {
      unmark(article);
      let any = word === "";
      for (const unit of units(article)) {
        const has = word === "" || unit.textContent.toLowerCase().includes(word);
        unit.hidden = !has;
        if (word !== "" && has && chosen.has(article.dataset.device)) {
          any = true;
          hits += 1;
          mark(unit, word);
        }
      }
      for (const box of article.querySelectorAll(".scroll")) {
        box.hidden = [...box.querySelectorAll("tbody tr")].every((row) => row.hidden);
      }
      article.hidden = !chosen.has(article.dataset.device) || !any;
    }
    for (const section of document.querySelectorAll("main > section")) {
      section.hidden = [...section.querySelectorAll("article")].every((article) => article.hidden);
    }
    document.getElementById("glance").hidden = word !== "" || chosen.size < boxes.length;
    nothing.hidden = word === "" || hits > 0;
    found.textContent = word === "" ? "" : `${hits} found`;
    const all = chosen.size === boxes.length;
    const address = all ? location.pathname : `?devices=${[...chosen].join(",")}`;
    try {
      history.replaceState(null, "", address + location.hash);
    } catch {
      // A page that was opened from a file may not change its address.
    }
  }

  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
})();
