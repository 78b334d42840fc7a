# Fit one model by REML and print its estimates and times as key=value lines.
# usage: Rscript lme4.R FILE FORMULA REPEATS [factor columns ...]
suppressMessages(library(lme4))
a <- commandArgs(TRUE)
d <- read.csv(if (grepl("gz$", a[1])) gzfile(a[1]) else a[1], stringsAsFactors = TRUE)
for (g in a[-(1:3)]) d[[g]] <- factor(d[[g]])
f <- as.formula(a[2])
times <- numeric(0)
for (i in seq_len(as.integer(a[3])))
  times[i] <- system.time(m <- suppressMessages(suppressWarnings(lmer(f, d))))[["elapsed"]]
v <- as.data.frame(VarCorr(m))
for (i in seq_len(nrow(v))) {
  two <- !is.na(v$var2[i])
  key <- if (v$grp[i] == "Residual") "sigma" else if (two) {
    paste0("cor_", v$grp[i], "[", v$var1[i], ", ", v$var2[i], "]")
  } else paste0("sd_", v$grp[i], "[", v$var1[i], "]")
  cat(key, "=", format(v$sdcor[i], digits = 10), "\n", sep = "")
}
b <- fixef(m)
for (k in names(b)) cat("beta[", k, "]=", format(b[[k]], digits = 10), "\n", sep = "")
cat("criterion=", format(REMLcrit(m), digits = 12), "\n", sep = "")
cat("seconds=", median(times), "\n", sep = "")
blas <- sessionInfo()$BLAS
cat("version=lme4 ", as.character(packageVersion("lme4")), ", ", R.version.string, ", BLAS ", basename(blas), "\n", sep = "")
