# A worker (see ../common.py): fits one model by REML, and for comparison by ML.
# usage: Rscript lme4.R FILE FORMULA default|no-derivatives [factor columns ...]
say <- function(...) { cat("@@", ..., "\n", sep = ""); flush(stdout()) }
if (!suppressMessages(suppressWarnings(require(lme4, quietly = TRUE)))) {
  say('{"left_out": "lme4 is not installed in R"}')
  quit()
}
a <- commandArgs(TRUE)
d <- read.csv(if (grepl("gz$", a[1])) gzfile(a[1]) else a[1], stringsAsFactors = TRUE)
for (g in a[-(1:3)]) d[[g]] <- factor(d[[g]])
# the formula is read anew in every timed fit, as the other programs read theirs
control <- if (a[3] == "default") lmerControl() else lmerControl(calc.derivs = FALSE)
fit <- function(reml) suppressMessages(suppressWarnings(lmer(as.formula(a[2]), d, REML = reml, control = control)))
quoted <- function(x) paste0('"', gsub('"', "'", x), '"')
object <- function(keys, values) paste0("{", paste0(quoted(keys), ": ", values, collapse = ", "), "}")

estimates <- function(m) {
  v <- as.data.frame(VarCorr(m))
  keys <- character(0)
  for (i in seq_len(nrow(v))) {
    two <- !is.na(v$var2[i])
    keys[i] <- if (v$grp[i] == "Residual") "sigma" else if (two) {
      paste0("cor_", v$grp[i], "[", v$var1[i], ", ", v$var2[i], "]")
    } else paste0("sd_", v$grp[i], "[", v$var1[i], "]")
  }
  b <- fixef(m)
  values <- c(v$sdcor, b)
  values[is.nan(values)] <- 0
  object(c(keys, paste0("beta[", names(b), "]")), sapply(values, function(x) format(x, digits = 12)))
}

input <- file("stdin", "r")
while (length(command <- readLines(input, 1)) == 1) {
  if (command == "go") {
    seconds <- system.time(m <- fit(TRUE))[["elapsed"]]
    # system.time counts milliseconds: shorter fits are repeated within one measurement
    if (seconds < 0.05) {
      times <- ceiling(0.1 / max(seconds, 0.002))
      seconds <- system.time(for (i in seq_len(times)) m <- fit(TRUE))[["elapsed"]] / times
    }
    say('{"seconds": ', format(seconds, digits = 8), "}")
  } else if (command == "estimates") {
    version <- paste0("lme4 ", packageVersion("lme4"), ", ", R.version$version.string)
    blas <- sessionInfo()$BLAS
    say('{"estimates": ', estimates(m), ', "ml": ', estimates(fit(FALSE)), ', "criterion": ',
        format(REMLcrit(m), digits = 14), ', "version": ', quoted(version), ', "blas": ', quoted(blas), "}")
  }
}
