(() => {
  const faults = [];
  const say = (what, element) => {
    const text = (element.textContent || "").trim().slice(0, 40);
    faults.push(`${what}: ${element.tagName}.${element.getAttribute("class") || ""} “${text}”`);
  };
  const isPaper = matchMedia("print").matches;
  document.querySelectorAll("details").forEach((fold) => { fold.open = true; });
  const width = document.documentElement.clientWidth;
  // On paper the table of all records has pages of its own, on their side.
  const table = document.getElementById("records");
  const isSideways = width > 1000;
  const isElsewhere = (element) => isPaper && table && !isSideways && table.contains(element);

  // Nothing beyond the edges, but for what is in a box that scrolls.
  for (const element of document.querySelectorAll("body *")) {
    if (!element.checkVisibility() || isElsewhere(element)) continue;
    const scrolls = element.closest(".wide");
    if (scrolls && scrolls !== element && !isPaper) continue;
    const box = element.getBoundingClientRect();
    if (box.right > width + 1 || box.left < -1) say(`beyond the edge by ${box.right - width}`, element);
  }
  if (!isPaper && document.documentElement.scrollWidth > width) say("the page is wide", document.body);
  // Nothing cut short.
  for (const element of document.querySelectorAll("body *:not(svg):not(svg *)")) {
    if (!element.checkVisibility() || isElsewhere(element) || element.matches(".wide")) continue;
    const style = getComputedStyle(element);
    if (style.overflowX !== "visible" && element.clientWidth > 0 && element.scrollWidth > element.clientWidth + 1
      && element.tagName !== "SELECT" && element.tagName !== "INPUT") say("cut short", element);
  }

  // Charts: texts within the drawing, none over another, and large enough.
  for (const chart of document.querySelectorAll(".chart svg")) {
    if (!chart.checkVisibility()) { say("hidden", chart); continue; }
    const frame = chart.viewBox.baseVal;
    const texts = [...chart.querySelectorAll("text")].map((text) => [text, text.getBBox()]);
    texts.forEach(([text, a], index) => {
      if (a.x < -1 || a.x + a.width > frame.width + 1 || a.y < -6 || a.y + a.height > frame.height + 6) {
        say("out of the chart", text);
      }
      for (const [other, b] of texts.slice(index + 1)) {
        const across = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x);
        const down = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y);
        // Lines may touch, as lines of text do.
        if (across > 1 && down > a.height / 2) say(`over “${other.textContent.trim()}”`, text);
      }
      const size = parseFloat(text.getAttribute("font-size")) * chart.getBoundingClientRect().width / frame.width;
      if (size < 10) say(`letters of ${size} pixels`, text);
    });
  }

  // Contrast of text with what is behind it, as WCAG computes it.
  const parse = (colour) => {
    const [red, green, blue, alpha = 1] = colour.match(/[\d.]+/g).map(Number);
    return { rgb: [red, green, blue], alpha };
  };
  const luminance = ({ rgb }) => {
    const [red, green, blue] = rgb.map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const contrast = (one, other) => {
    const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
    return (light + 0.05) / (dark + 0.05);
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const ground = parse(getComputedStyle(at).backgroundColor);
      if (ground.alpha === 1) return ground;
    }
    return { rgb: [255, 255, 255] };
  };
  const seen = new Set();
  for (const element of document.querySelectorAll("body *")) {
    const has = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!has || !element.checkVisibility() || element.closest("script, option")) continue;
    const isDrawn = element instanceof SVGElement;
    const style = getComputedStyle(element);
    const colour = parse(isDrawn ? style.fill : style.color);
    const ground = behind(isDrawn ? element.closest("div") : element);
    const found = contrast(colour, ground);
    if (found < 4.5) {
      const key = `${style.color} ${element.tagName}`;
      if (!seen.has(key)) say(`contrast of ${found.toFixed(2)}`, element);
      seen.add(key);
    }
  }
  // And of what charts are drawn with.
  for (const mark of document.querySelectorAll(".chart rect, .chart circle, .chart polyline")) {
    const style = getComputedStyle(mark);
    const isGrid = ["#C4CBD3", "#BFC8D1", "#FFFFFF"].includes(mark.getAttribute("fill"))
      || ["#C4CBD3", "#FFFFFF"].includes(mark.getAttribute("stroke"));
    if (isGrid) continue;
    const colours = [style.fill, style.stroke].filter((colour) => colour.startsWith("rgb"));
    const best = Math.max(...colours.map((colour) => contrast(parse(colour), behind(mark.closest("div")))));
    if (colours.length === 0 || best < 3) say(`a mark of contrast ${best}`, mark);
  }

  // Structure.
  const levels = [...document.querySelectorAll("h1, h2, h3, h4")].map((heading) => Number(heading.tagName[1]));
  if (levels.filter((level) => level === 1).length !== 1 || levels[0] !== 1) faults.push(`headings: ${levels}`);
  if (levels.some((level, index) => index && level > levels[index - 1] + 1)) faults.push(`headings: ${levels}`);
  for (const cell of document.querySelectorAll("th")) if (!cell.scope) say("no scope", cell);
  for (const image of document.querySelectorAll("[role=img]")) {
    if (!(image.getAttribute("aria-label") || "").trim()) say("not told", image);
  }
  for (const field of document.querySelectorAll("input, select")) if (!field.labels.length) say("no label", field);
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  if (new Set(ids).size !== ids.length) faults.push("an id is there twice");
  for (const link of document.querySelectorAll("a[href^='#'], [aria-labelledby]")) {
    const id = link.getAttribute("aria-labelledby") || link.getAttribute("href").slice(1);
    if (!document.getElementById(id)) say("leads nowhere", link);
  }
  if (!document.documentElement.lang || !document.title) faults.push("no language or title");
  return [...new Set(faults)].slice(0, 20);
})()
