"use strict";
(() => {
  const table = document.getElementById("category-table");
  const { columns, rows } = JSON.parse(document.getElementById("report-data").textContent).table;
  const body = table.tBodies[0], search = document.getElementById("search"), group = document.getElementById("group");
  const status = document.getElementById("shown");
  const groups = { r: "rare", c: "common", f: "frequent" }, rank = { f: 0, c: 1, r: 2 };
  const readable = text => text.replace(/(?<=[^\s_])_+(?=[^\s_])/g, " "); // as names are on pictures
  const write = {
    text: readable, group: v => groups[v], count: v => v.toLocaleString("en"),
    percent: v => (100 * v).toFixed(1), number: v => v.toFixed(3),
    change: v => (v > 0.0005 ? "+" : v < -0.0005 ? "\u2212" : "") + Math.abs(100 * v).toFixed(1),
  };
  // Every row is made once; sorting and searching only order and choose.
  const made = rows.map(row => {
    const tr = document.createElement("tr");
    columns.forEach((column, i) => {
      const td = document.createElement("td"), value = row[i];
      td.textContent = value === null ? "\u2013" : write[column.kind](value);
      if (column.kind === "group") td.className = "text key " + groups[value];
      if (column.kind === "change" && Math.abs(value) > 0.0005) td.className = value > 0 ? "up" : "down";
      if (column.kind === "text") td.className = "name";
      tr.append(td);
    });
    return { row, tr, text: readable(String(row[0])).toLowerCase() };
  });
  let by = null, down = false;
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const compare = (a, b) => {
    const x = a.row[by], y = b.row[by], kind = columns[by].kind;
    if (x === null || y === null) return (x === null) - (y === null); // what does not exist stays at the end
    const order = kind === "text" ? collator.compare(x, y) : kind === "group" ? rank[x] - rank[y] : x - y;
    return down ? -order : order;
  };
  const show = () => {
    const wanted = readable(search.value.trim()).toLowerCase(), letter = group.value;
    const at = columns.findIndex(c => c.kind === "group");
    const found = made.filter(m => m.text.includes(wanted) && (!letter || m.row[at] === letter));
    if (by !== null) found.sort(compare);
    body.replaceChildren(...found.map(m => m.tr));
    status.textContent = `${found.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} ${rows.length === 1 ? "category" : "categories"}`;
  };
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((th, i) => th.querySelector("button").addEventListener("click", () => {
    down = by === i ? !down : !["text", "group"].includes(columns[i].kind);
    by = i;
    headers.forEach((h, j) => j === i ? h.setAttribute("aria-sort", down ? "descending" : "ascending") : h.removeAttribute("aria-sort"));
    show();
  }));
  search.addEventListener("input", show);
  group.addEventListener("change", show);
  show();
})();
