// node browser.cjs PAGE.html [FOLDER]: open a report in Chromium and print what it does as one JSON line; screenshots go
// into FOLDER. Needs puppeteer-core and axe-core (found by NODE_PATH) and a Chromium (CHROMIUM, default /usr/bin/chromium).
const fs = require("fs");
const path = require("path");
const { pathToFileURL } = require("url");
const puppeteer = require("puppeteer-core");
const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const [page_file, folder] = process.argv.slice(2);
const address = pathToFileURL(path.resolve(page_file)).href;
const SERIOUS = ["serious", "critical"];

async function open(browser, width, scheme, found, { bypass } = { bypass: true }) {
  const page = await browser.newPage();
  await page.setViewport({ width, height: 900 });
  await page.setBypassCSP(bypass); // for axe, which is injected; a request that the policy would stop is counted too
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  page.on("request", r => { if (!r.url().startsWith("data:") && r.url() !== address) found.requests.push(r.url()); });
  page.on("pageerror", e => found.errors.push(String(e)));
  page.on("console", m => { if (["error", "warning"].includes(m.type())) found.errors.push(m.text()); });
  await page.goto(address, { waitUntil: "load" });
  return page;
}

const rows = page => page.$$eval("#category-table tbody tr", all => all.map(tr => tr.cells[0].textContent));

(async () => {
  const executablePath = process.env.CHROMIUM || "/usr/bin/chromium";
  const browser = await puppeteer.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"], protocolTimeout: 600000 });
  const found = { bytes: fs.statSync(page_file).size, requests: [], errors: [], violations: [], overflow: [], load_ms: [] };
  for (const scheme of ["light", "dark"]) {
    for (const width of [1280, 390]) {
      const page = await open(browser, width, scheme, found);
      // Until everything is laid out and the table is filled.
      found.load_ms.push(Math.round(await page.evaluate(() => new Promise(done => requestAnimationFrame(() => setTimeout(() => done(performance.now()), 0))))));
      if (folder) {
        await page.screenshot({ path: path.join(folder, `${scheme}_${width}.png`) });
        for (const id of await page.$$eval("section", all => all.map(s => s.id))) {
          await page.evaluate(i => document.getElementById(i).scrollIntoView({ behavior: "instant" }), id);
          await page.screenshot({ path: path.join(folder, `${scheme}_${width}_${id}.png`) });
        }
      }
      found.overflow.push(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth));
      await page.$$eval("details", all => all.forEach(d => { d.open = true; }));
      await page.evaluate(axe);
      const checked = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
      for (const v of checked.violations)
        found.violations.push({ scheme, width, id: v.id, impact: v.impact, nodes: v.nodes.length, first: v.nodes[0].html.slice(0, 160) });
      await page.close();
    }
  }
  found.serious = found.violations.filter(v => SERIOUS.includes(v.impact)).length;

  // By keyboard alone: the skip link comes first, a heading sorts by Enter, a name is searched by typing.
  const page = await open(browser, 1280, "light", found, { bypass: false });
  await page.keyboard.press("Tab");
  found.first_focus = await page.evaluate(() => document.activeElement.textContent);
  const before = await rows(page);
  await page.focus("#category-table thead th:nth-child(6) button");
  await page.keyboard.press("Enter");
  found.sorted = await page.$$eval("#category-table tbody tr", all => all.map(tr => tr.cells[5].textContent));
  found.aria_sort = await page.$eval("#category-table thead th:nth-child(6)", th => th.getAttribute("aria-sort"));
  await page.focus("#search");
  await page.keyboard.type(before[0].toUpperCase());
  found.searched = await rows(page);
  found.status = await page.$eval("#shown", e => e.textContent);
  found.names = before;
  found.images = await page.$$eval("img", all => all.length);
  await browser.close();
  console.log(JSON.stringify(found));
})().catch(error => { console.error(error); process.exit(1); });
